import numpy as np
import pytest
import torch

from hf_seqrec.data.collators import ClozeCollator, NextItemCollator
from hf_seqrec.data.leave_one_out import leave_one_out
from hf_seqrec.data.windows import sliding_windows


def training_view(make_sequences, *lengths):
    # Events number themselves; the last two are held out.
    return leave_one_out(make_sequences(*[list(range(1, length + 3)) for length in lengths])).train


def windows(view):
    return [view.history(index).tolist() for index in range(len(view))]


def test_by_hand(make_sequences):
    train = training_view(make_sequences, 8, 4, 5, 2)
    view = sliding_windows(train, max_length=3)
    of_five = [[1, 2], [2, 3, 4, 5]]
    assert windows(view) == [[1, 2], [2, 3, 4, 5], [5, 6, 7, 8], [1, 2, 3, 4], *of_five, [1, 2]]
    assert view.users.tolist() == [0, 0, 0, 1, 2, 2, 3]
    assert view.windows.tolist() == [2, 1, 0, 0, 1, 0, 0]
    assert view.sequences.item_rows is train.sequences.item_rows
    view = sliding_windows(train, max_length=3, stride=2)
    assert windows(view)[:3] == [[1, 2, 3, 4], [3, 4, 5, 6], [5, 6, 7, 8]]
    assert windows(view)[4:6] == [[1, 2, 3], [2, 3, 4, 5]]


@pytest.mark.parametrize("max_length", [1, 4, 7])
def test_every_event_is_asked_for(make_sequences, max_length):
    lengths = [2, 3, 7, 8, 9, 14, 15, 16, 100]
    train = training_view(make_sequences, *lengths)
    collator = NextItemCollator(max_length)
    for stride in range(1, max_length + 1):
        view = sliding_windows(train, max_length, stride)
        (batch,) = view.__getitems__(range(len(view)))
        labels = collator([batch])["labels"].numpy()
        for user, length in enumerate(lengths):
            asked = labels[batch.users == user]
            times = np.bincount(asked[asked > 0], minlength=length + 1)
            assert (times[2:] >= 1).all()
            assert times[:2].sum() == 0
            if stride == max_length:
                assert (times[2:] == 1).all()
            assert (np.diff(view.stops[view.users == user]) == stride).all()


def test_windows_of_a_user_are_masked_differently(make_sequences):
    view = sliding_windows(training_view(make_sequences, 41), max_length=20)
    masks = ClozeCollator(20, mask_row=99, mask_last_probability=0.0)(view.__getitems__([0, 1]))["input_ids"] == 99
    assert masks.sum(dim=1).tolist() == [4, 4]
    assert not torch.equal(masks[0], masks[1])


@pytest.mark.parametrize("stride", [0, -1, 4])
def test_strides_that_leave_events_out(make_sequences, stride):
    with pytest.raises(ValueError, match=rf"between 1 and `max_length`, 3, got {stride}"):
        sliding_windows(training_view(make_sequences, 8), max_length=3, stride=stride)


def test_views_with_targets(make_sequences):
    test = leave_one_out(make_sequences([1, 2, 3, 4])).test
    with pytest.raises(ValueError, match="must be the training view"):
        sliding_windows(test, max_length=3)
