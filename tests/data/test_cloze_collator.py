import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hf_seqrec.data.collators import ClozeCollator
from hf_seqrec.data.leave_one_out import leave_one_out

MASK = 51


@pytest.fixture
def train(make_sequences):
    # Histories of 40 items and one of 2, all of them distinct.
    return leave_one_out(make_sequences(*[list(range(1, 43))] * 300, [1, 2, 3, 4])).train


def collate(train, epoch=0, **fields):
    train.set_epoch(epoch)
    collator = ClozeCollator(**{"max_length": 40, "mask_row": MASK, "mask_last_probability": 0.0} | fields)
    return collator(train.__getitems__(range(len(train))))


def test_hides_a_fifth_of_the_items_and_asks_for_them(train):
    batch = collate(train)
    items = torch.arange(1, 41).expand(300, -1)
    hidden = batch["labels"][:300] != -100
    assert (hidden.sum(dim=1) == 8).all()
    assert torch.equal(batch["labels"][:300][hidden], items[hidden])
    assert (batch["input_ids"][:300][hidden] == MASK).all()
    assert torch.equal(batch["input_ids"][:300][~hidden], items[~hidden])
    assert (batch["attention_mask"][:300] == 1).all()
    # Every position is hidden equally often: 60 of 300 times, 7 standard deviations wide.
    often = hidden.sum(dim=0)
    assert 15 < often.min() < 60 < often.max() < 105


def test_at_least_one_item_is_hidden_and_never_padding(train):
    batch = collate(train)
    assert batch["attention_mask"][300].tolist() == [1, 1] + [0] * 38
    assert (batch["input_ids"][300, 2:] == 0).all()
    assert (batch["labels"][300, 2:] == -100).all()
    assert (batch["labels"][300] != -100).sum() == 1
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_now_and_then_only_the_last(train):
    only_last = collate(train, mask_last_probability=1.0)
    assert (only_last["input_ids"][:300, 39] == MASK).all()
    assert ((only_last["labels"] != -100).sum(dim=1) == 1).all()
    assert only_last["labels"][300, :3].tolist() == [-100, 2, -100]
    some = collate(train, mask_last_probability=0.25)["labels"][:300] != -100
    is_only_last = some[:, 39] & (some.sum(dim=1) == 1)
    assert 40 < is_only_last.sum() < 110
    # The others are masked as if there were no such histories.
    assert torch.equal(some[~is_only_last], (collate(train)["labels"][:300] != -100)[~is_only_last])


def test_masks_depend_on_seed_epoch_and_user_alone(train):
    np.random.seed(1)
    torch.manual_seed(1)
    batch = collate(train, epoch=3, seed=7)
    np.random.seed(2)
    torch.manual_seed(2)
    assert torch.equal(collate(train, epoch=3, seed=7)["labels"], batch["labels"])
    assert not torch.equal(collate(train, epoch=4, seed=7)["labels"], batch["labels"])
    assert not torch.equal(collate(train, epoch=3, seed=8)["labels"], batch["labels"])
    rows = batch["labels"][:300] != -100
    assert len(rows.unique(dim=0)) > 295
    collator = ClozeCollator(40, MASK, mask_last_probability=0.0, seed=7)
    train.set_epoch(3)
    assert torch.equal(collator([train[5], train[300]])["labels"], batch["labels"][[5, 300]])


def test_workers_agree(train):
    collator = ClozeCollator(40, MASK)
    here, there = (DataLoader(train, 100, collate_fn=collator, num_workers=workers) for workers in (0, 2))
    for one, other in zip(here, there, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_windows(train):
    last = collate(train, max_length=10)
    shown = torch.where(last["labels"] == -100, last["input_ids"], last["labels"])
    assert torch.equal(shown[:300], torch.arange(31, 41).expand(300, -1))
    anywhere = collate(train, max_length=10, window="random")
    shown = torch.where(anywhere["labels"] == -100, anywhere["input_ids"], anywhere["labels"])[:300]
    assert torch.equal(shown, shown[:, :1] + torch.arange(10))
    assert (shown[:, 0].min(), shown[:, 0].max()) == (1, 31)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_length": 1}, "`max_length` must be at least 2, got 1"),
        ({"mask_probability": 0.0}, r"`mask_probability` must be in \(0, 1\), got 0.0"),
        ({"mask_last_probability": -0.1}, r"`mask_last_probability` must be in \[0, 1\], got -0.1"),
        ({"window": "first"}, '`window` must be "last" or "random"'),
    ],
)
def test_arguments_out_of_range(fields, message):
    with pytest.raises(ValueError, match=message):
        ClozeCollator(**{"max_length": 5, "mask_row": MASK} | fields)
