from hf_seqrec.data.leave_one_out import leave_one_out
from hf_seqrec.evaluation.protocol import EvaluationProtocol
from hf_seqrec.evaluation.tables import print_recommendations, print_results
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


def test_results_beside_baselines(capsys):
    sequences = sequences_of([1, 2, 3, 1], [1, 2, 1, 2])
    metrics = {"eval_ndcg@10": 0.75, "test_ndcg@10": 0.5, "test_ndcg@10_with_seen": 0.25}
    baselines = {"rules": {"eval_ndcg@10": 0.875, "test_ndcg@10": 0.375, "test_hr@20": 1.0}, "popularity": {}}
    print_results(sequences, leave_one_out(sequences), metrics, EvaluationProtocol(), baselines)
    tables = capsys.readouterr().out.split("\n\n")
    excluded, with_seen = ([line.split() for line in table.splitlines()] for table in tables[-2:])
    assert excluded[1] == ["hr@5", "ndcg@5", "hr@10", "ndcg@10", "mrr@10", "hr@20"]
    assert excluded[2:] == [["rules", "0.3750", "1.0000"], ["popularity"], ["this", "model", "0.5000"]]
    assert with_seen[2:] == [["rules"], ["popularity"], ["this", "model", "0.2500"]]
