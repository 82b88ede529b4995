import numpy as np
import pytest

from hf_seqrec.data.collators import RankingCollator
from hf_seqrec.data.leave_one_out import leave_one_out
from hf_seqrec.evaluation.candidates import SampledRankingCollator, check_enough_negatives
from tests.helpers import sequences_of, walks


@pytest.fixture
def test_view():
    return leave_one_out(walks()).test


def test_negatives_are_new_to_the_user(test_view):
    sequences = sequences_of([1, 2, 3, 4], [5, 6, 7, 5, 6], [1, 2, 3, 4, 5, 6, 7, 8], n_items=20)
    view = leave_one_out(sequences).test
    collate = SampledRankingCollator(RankingCollator(3), vocab_size=21, n_negatives=10, distribution="uniform")
    batch = collate(view.__getitems__([0, 1, 2]))
    assert batch["eval_negatives"].shape == (3, 10)
    for user in range(3):
        negatives = set(batch["eval_negatives"][user].tolist())
        assert len(negatives) == 10
        # The whole history, not only the three items the model sees.
        assert not negatives & {0, *sequences.history(user).tolist()}


def test_a_user_has_the_same_negatives_in_any_batch(test_view):
    options = {"vocab_size": 13, "n_negatives": 2, "distribution": "popularity", "item_counts": np.arange(13)}
    users = [user for user in range(40) if len(set(test_view.history(user))) < 9][:5]
    collate = SampledRankingCollator(RankingCollator(10), **options)
    together = collate(test_view.__getitems__(users))["eval_negatives"]
    alone = [collate([test_view[user]])["eval_negatives"][0] for user in users]
    np.testing.assert_array_equal(together, np.stack(alone))
    other = SampledRankingCollator(RankingCollator(10), **options, seed=1)(test_view.__getitems__(users))
    assert (other["eval_negatives"] != together).any()


def test_too_many_negatives_are_found_before_training():
    # The second user has seen 1, 2, 3 (the last twice): of 6 items 3 are left, and 1 of those with a count.
    view = leave_one_out(sequences_of([1, 2, 3], [1, 2, 3, 3], n_items=6)).test
    check_enough_negatives(view, 3, "uniform", n_items=6)
    with pytest.raises(ValueError, match=r"at most the 3 items .* got 4, too many for 2 of 2 users"):
        check_enough_negatives(view, 4, "uniform", n_items=6)
    counts = np.array([0, 1, 1, 1, 1, 0, 0])
    check_enough_negatives(view, 1, "popularity", n_items=6, item_counts=counts)
    with pytest.raises(ValueError, match="at most the 1 items"):
        check_enough_negatives(view, 2, "popularity", n_items=6, item_counts=counts)
