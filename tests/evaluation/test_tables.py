from hf_seqrec.data.leave_one_out import leave_one_out
from hf_seqrec.evaluation.tables import print_recommendations
from tests.helpers import sequences_of, small_model


def test_a_user_who_has_had_every_item(capsys):
    # What is held out of the first user's history for test comes after all three items.
    sequences = sequences_of([1, 2, 3, 1], [1, 2, 1, 2])
    test = leave_one_out(sequences).test
    model = small_model(4).eval()
    print_recommendations(model, sequences.catalog, test)
    printed = capsys.readouterr().out
    assert "user-0, 3 events" in printed
    assert "Nothing is recommended: the history has every item of the catalog." in printed
    print_recommendations(model, sequences.catalog, test, user=1)
    printed = capsys.readouterr().out
    assert "   1. Item 3" in printed
    assert "Came next: Item 2" in printed
