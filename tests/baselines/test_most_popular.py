import numpy as np
import torch

from hf_seqrec.baselines import MostPopular
from hf_seqrec.baselines.most_popular import popularity_below_zero
from hf_seqrec.data import RankingCollator, leave_one_out
from hf_seqrec.data.baselines import popularity_ranks
from tests.helpers import sequences_of


def test_by_hand(train_view, score):
    baseline = MostPopular().fit(train_view([1, 2, 1], [1, 3], n_items=4))
    np.testing.assert_array_equal(score(baseline, [3, 1], [2]), [[3, 1, 1, 0]] * 2)


def test_the_ranks_of_the_closed_form(random_histories):
    splits = leave_one_out(sequences_of(*random_histories(0), n_items=12))
    baseline = MostPopular().fit(splits.train)
    batch = RankingCollator(5)(splits.test.__getitems__(range(len(splits.test))))
    ranks = baseline.rank_targets(baseline.scores(batch), batch["targets"], batch["seen_items"])
    for found, expected in zip(ranks, popularity_ranks(splits.train, splits.test), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_large_counts_are_told_apart(train_view):
    baseline = MostPopular().fit(train_view([1]))
    baseline._counts = torch.tensor([-torch.inf, 2**24, 2**24 + 1], dtype=torch.float64)
    baseline.vocab_size = 3
    scores = baseline.scores({"input_ids": torch.tensor([[1]])})
    assert baseline.rank_targets(scores, torch.tensor([2]), torch.tensor([[0]]))[0].tolist() == [0]


def test_popularity_below_zero():
    # Three different counts: evenly spaced, below 0, equal where they are equal.
    np.testing.assert_allclose(popularity_below_zero(np.array([0, 900, 0, 5])), [-1, -1 / 3, -1, -2 / 3], rtol=1e-6)
