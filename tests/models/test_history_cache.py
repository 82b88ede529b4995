"""Keys and values of rows of different lengths, against what was put in."""

import pytest
import torch

from hf_seqrec.models.history_cache import HistoryCache


def numbered(first, length):
    """States `(2, 1, l, 1)` whose numbers say which they are: 100 for the second row."""
    return torch.stack([torch.arange(first, first + length), torch.arange(first, first + length) + 100])[
        :, None, :, None
    ]


@pytest.fixture
def cache():
    cache = HistoryCache()
    cache.append(0, numbered(0, 4), -numbered(0, 4), torch.tensor([3, 1]))
    return cache


def test_items_stand_at_their_positions(cache):
    keys, values = cache.append(0, numbered(10, 2), -numbered(10, 2), torch.tensor([1, 2]))
    assert keys[0, 0, :4, 0].tolist() == [0, 1, 2, 10]
    assert keys[1, 0, :3, 0].tolist() == [100, 110, 111]
    assert torch.equal(values, -keys)
    assert cache.get(0, "lengths").tolist() == [4, 3]
    keys, _ = cache.append(0, numbered(20, 1), numbered(20, 1), torch.tensor([0, 1]))
    assert keys[0, 0, :4, 0].tolist() == [0, 1, 2, 10]
    assert keys[1, 0, :4, 0].tolist() == [100, 110, 111, 120]


def test_padding_is_not_kept(cache):
    assert cache.get(0, "keys").shape[2] == 3


def test_layers_keep_apart(cache):
    cache.append(1, numbered(50, 1), numbered(50, 1), torch.tensor([1, 1]))
    assert cache.get(0, "lengths").tolist() == [3, 1]
    assert cache.get(1, "lengths").tolist() == [1, 1]
    assert cache.get(2, "lengths") is None


def test_rows_can_be_chosen_and_repeated(cache):
    cache.set(1, "mean", torch.tensor([[5.0], [7.0]]))
    cache.batch_repeat_interleave(2)
    assert cache.get(0, "lengths").tolist() == [3, 3, 1, 1]
    assert cache.get(1, "mean").tolist() == [[5.0], [5.0], [7.0], [7.0]]
    cache.batch_select_indices(torch.tensor([2, 0]))
    assert cache.get(1, "mean").tolist() == [[7.0], [5.0]]
    keys, _ = cache.append(0, numbered(10, 1), numbered(10, 1), torch.tensor([1, 1]))
    assert keys[0, 0, :2, 0].tolist() == [100, 10]
    assert keys[1, 0, :4, 0].tolist() == [0, 1, 2, 110]


def test_reset_forgets(cache):
    cache.reset()
    assert not cache.states
    keys, _ = cache.append(0, numbered(10, 1), numbered(10, 1), torch.tensor([1, 1]))
    assert keys.flatten().tolist() == [10, 110]
    assert cache.get(0, "lengths").tolist() == [1, 1]


def test_goes_on_from_given_states_and_leaves_them_alone():
    given = {"0.mean": torch.tensor([[5.0]])}
    cache = HistoryCache(given)
    cache.set(0, "mean", torch.tensor([[6.0]]))
    assert given["0.mean"].item() == 5
    assert cache.states["0.mean"].item() == 6
