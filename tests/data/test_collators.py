import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hf_seqrec.data.collators import NextItemCollator, RankingCollator
from hf_seqrec.data.leave_one_out import leave_one_out
from hf_seqrec.data.seeded_draws import below, user_draws


@pytest.fixture
def splits(make_sequences):
    # Training: 1 2 3 4 5, and 6 7.
    return leave_one_out(make_sequences([1, 2, 3, 4, 5, 8, 9], [6, 7, 1, 2]))


def test_next_item(splits):
    batch = NextItemCollator(max_length=10)(splits.train.__getitems__([0, 1]))
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4], [6, 0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 0, 0, 0]]
    assert batch["labels"].tolist() == [[2, 3, 4, 5], [7, -100, -100, -100]]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_the_most_recent_are_kept(splits):
    batch = NextItemCollator(max_length=2)(splits.train.__getitems__([1, 0]))
    assert batch["input_ids"].tolist() == [[6, 0], [3, 4]]
    assert batch["labels"].tolist() == [[7, -100], [4, 5]]


def test_the_last_position_alone(splits):
    batch = NextItemCollator(max_length=3, train_on="last_position")(splits.train.__getitems__([0, 1]))
    assert batch["input_ids"].tolist() == [[2, 3, 4], [6, 0, 0]]
    assert batch["labels"].tolist() == [5, 7]
    with pytest.raises(ValueError, match='"every_position" or "last_position", got \'first\''):
        NextItemCollator(max_length=3, train_on="first")


def test_ranking(splits):
    batch = RankingCollator(max_length=2)(splits.test.__getitems__([0, 1]))
    assert batch["input_ids"].tolist() == [[5, 8], [7, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 1]]
    assert batch["labels"].tolist() == batch["targets"].tolist() == [9, 2]
    assert batch["seen_items"].tolist() == [[1, 2, 3, 4, 5, 8], [6, 7, 1, 0, 0, 0]]
    batch = RankingCollator(max_length=10)(splits.validation.__getitems__([1, 0]))
    assert batch["input_ids"].tolist() == [[6, 7, 0, 0, 0], [1, 2, 3, 4, 5]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["labels"].tolist() == [1, 8]


def test_single_examples_make_the_same_batch(splits):
    collator = RankingCollator(max_length=3)
    together, apart = collator(splits.test.__getitems__([1, 0])), collator([splits.test[1], splits.test[0]])
    assert all(torch.equal(together[name], apart[name]) for name in together)


def test_random_windows(make_sequences):
    # Events number themselves; training has 1..40.
    train = leave_one_out(make_sequences(*[list(range(1, 43))] * 200, [1, 2, 3, 4])).train
    collator = NextItemCollator(max_length=4, window="random", seed=0)
    batch = collator(train.__getitems__(range(201)))
    first = batch["input_ids"][:200, 0]
    assert torch.equal(batch["input_ids"][:200], first[:, None] + torch.arange(4))
    assert torch.equal(batch["labels"][:200], first[:, None] + torch.arange(1, 5))
    # 36 windows of five events begin at 1..36; 200 draws miss few of them.
    assert (first.min(), first.max()) == (1, 36)
    assert len(first.unique()) > 30
    assert batch["input_ids"][200].tolist() == [1, 0, 0, 0]

    train.set_epoch(1)
    assert not torch.equal(collator(train.__getitems__(range(200)))["input_ids"][:, 0], first)
    train.set_epoch(0)
    other_order = collator(train.__getitems__(range(199, -1, -1)))["input_ids"].flip(0)
    assert torch.equal(other_order[:, 0], first)
    other_seed = NextItemCollator(max_length=4, window="random", seed=1)(train.__getitems__(range(200)))
    assert not torch.equal(other_seed["input_ids"][:, 0], first)


@pytest.mark.parametrize("seed", [0, -1, 2**70])
def test_draws_are_uniform(seed):
    users = np.arange(70_000)
    drawn = below(user_draws(users, seed=seed, epoch=3), np.full(len(users), 7))
    counts = np.bincount(drawn, minlength=8)
    # 10,000 each, with a standard deviation of about 93.
    assert counts[7] == 0
    assert np.abs(counts[:7] - 10_000).max() < 450


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_agree(make_sequences, workers):
    train = leave_one_out(make_sequences(*[list(range(1, 30))] * 6)).train
    collator = NextItemCollator(max_length=3, window="random")
    loader = DataLoader(train, batch_size=2, collate_fn=collator, num_workers=workers)
    expected = collator(train.__getitems__(range(6)))["input_ids"]
    assert torch.equal(torch.cat([batch["input_ids"] for batch in loader]), expected)


def test_wrong_arguments(splits):
    for collator in (NextItemCollator, RankingCollator):
        with pytest.raises(ValueError, match="`max_length` must be at least 1, got 0"):
            collator(max_length=0)
    with pytest.raises(ValueError, match='"last" or "random", got \'first\''):
        NextItemCollator(max_length=1, window="first")
    with pytest.raises(ValueError, match="must have targets"):
        RankingCollator(max_length=1)(splits.train.__getitems__([0]))
    single = splits.validation.__class__(
        splits.train.sequences, np.array([0]), np.array([0]), np.array([1]), has_targets=False
    )
    with pytest.raises(ValueError, match="at least 2 events"):
        NextItemCollator(max_length=5)(single.__getitems__([0]))
