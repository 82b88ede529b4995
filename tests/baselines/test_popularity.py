import numpy as np
import pytest

from hf_seqrec.baselines.popularity import popularity_baseline, popularity_ranks
from hf_seqrec.data.leave_one_out import leave_one_out
from hf_seqrec.metrics import ranks_from_scores


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
