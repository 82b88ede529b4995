import pytest

from hf_seqrec.data.collators import ClozeCollator, NextItemCollator
from hf_seqrec.data.leave_one_out import leave_one_out
from hf_seqrec.data.windows import every_prefix


def test_by_hand(make_sequences):
    splits = leave_one_out(make_sequences([1, 2, 3, 4, 8, 9], [5, 6, 7, 5]))
    view = every_prefix(splits.train, max_length=2)
    assert [view.history(index).tolist() for index in range(len(view))] == [[1, 2], [1, 2, 3], [2, 3, 4], [5, 6]]
    assert view.users.tolist() == [0, 0, 0, 1]
    assert view.windows.tolist() == [2, 1, 0, 0]
    assert view.sequences.item_rows is splits.train.sequences.item_rows
    batch = NextItemCollator(2, train_on="last_position")(view.__getitems__(range(4)))
    assert batch["input_ids"].tolist() == [[1, 0], [1, 2], [2, 3], [5, 0]]
    assert batch["labels"].tolist() == [2, 3, 4, 6]
    with pytest.raises(ValueError, match="training view"):
        every_prefix(splits.test, max_length=2)


def test_asks_for_what_every_position_asks_for(make_sequences):
    train = leave_one_out(make_sequences(list(range(1, 40)), [3, 1, 2, 2, 5], [4, 4, 1, 2])).train
    every_position = NextItemCollator(100)(train.__getitems__(range(3)))
    view = every_prefix(train, max_length=100)
    prefixes = NextItemCollator(100, train_on="last_position")(view.__getitems__(range(len(view))))
    labels = [batch["labels"][batch["labels"] > 0].tolist() for batch in (every_position, prefixes)]
    assert labels[0] == labels[1]


def test_prefixes_of_a_user_are_masked_differently(make_sequences):
    train = leave_one_out(make_sequences(list(range(1, 40)))).train
    view = every_prefix(train, max_length=6)
    batch = ClozeCollator(7, mask_row=40, mask_last_probability=0.0)(view.__getitems__(range(20, 30)))
    places = {tuple(row) for row in (batch["input_ids"] == 40).tolist()}
    assert len(places) > 3
