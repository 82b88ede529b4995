import numpy as np
import pytest
import torch

from hf_seqrec.baselines.popularity import (
    MostPopular,
    popularity_baseline,
    popularity_below_zero,
    popularity_ranks,
)
from hf_seqrec.data.collators import RankingCollator
from hf_seqrec.data.leave_one_out import leave_one_out
from hf_seqrec.metrics import ranks_from_scores
from tests.helpers import sequences_of


def test_by_hand(make_sequences):
    # Training: 1 2 | 1 3 | 1 2, so counts are 1: 3, 2: 2, 3: 1, 4: 0, 5: 0.
    sequences = make_sequences([1, 2, 3, 2], [1, 3, 4, 1], [1, 2, 5, 4])
    splits = leave_one_out(sequences)
    ranks, with_seen = popularity_ranks(splits.train, splits.test)
    # Targets 2, 1, 4. With the history: 1 is ahead of 2; nothing of 1; 1, 2, 3 and the tie 5 of 4.
    assert with_seen.tolist() == [1, 0, 4]
    # Without: user 0 has had 1 (and the target 2, which still takes part); user 2 has had 1, 2 and 5, which leaves 3.
    assert ranks.tolist() == [0, 0, 1]
    metrics = popularity_baseline(splits.train, splits.test, ks=(1, 2))
    assert metrics["hr@1"] == pytest.approx(2 / 3)
    assert metrics["hr@2"] == 1
    assert metrics["hr@1_with_seen"] == pytest.approx(1 / 3)
    assert metrics["ndcg@2_with_seen"] == pytest.approx((1 / np.log2(3) + 1) / 3)


def test_against_the_definition(make_sequences):
    rng = np.random.default_rng(0)
    sequences = make_sequences(*[rng.integers(1, 13, rng.integers(3, 9)).tolist() for _ in range(40)])
    splits = leave_one_out(sequences)
    counts = np.zeros(sequences.catalog.vocab_size)
    for index in range(len(splits.train)):
        np.add.at(counts, splits.train.history(index), 1)
    scores = np.tile(counts, (40, 1))
    seen = [splits.test.history(index).tolist() for index in range(40)]
    ranks, with_seen = popularity_ranks(splits.train, splits.test)
    np.testing.assert_array_equal(with_seen, ranks_from_scores(scores, splits.test.targets))
    np.testing.assert_array_equal(ranks, ranks_from_scores(scores, splits.test.targets, seen=seen))


def test_no_targets(make_sequences):
    splits = leave_one_out(make_sequences([1, 2, 3, 4]))
    with pytest.raises(ValueError, match="must have targets"):
        popularity_baseline(splits.train, splits.train)


def test_scores_by_hand(train_view, score):
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
