"""Keys and values of rows of different lengths, against what was put in."""

import pytest
import torch

from hf_seqrec.models.layer_caches import RaggedAttentionLayer, RecurrentStateLayer


def numbered(first, length):
    """States `(2, 1, l, 1)` whose numbers say which they are: 100 for the second row."""
    return torch.stack([torch.arange(first, first + length), torch.arange(first, first + length) + 100])[
        :, None, :, None
    ]


@pytest.fixture
def layer():
    layer = RaggedAttentionLayer()
    layer.update(numbered(0, 4), -numbered(0, 4), torch.tensor([3, 1]))
    return layer


def test_items_stand_at_their_positions(layer):
    keys, values = layer.update(numbered(10, 2), -numbered(10, 2), torch.tensor([1, 2]))
    assert keys[0, 0, :4, 0].tolist() == [0, 1, 2, 10]
    assert keys[1, 0, :3, 0].tolist() == [100, 110, 111]
    assert torch.equal(values, -keys)
    assert layer.lengths.tolist() == [4, 3]
    keys, _ = layer.update(numbered(20, 1), numbered(20, 1), torch.tensor([0, 1]))
    assert keys[0, 0, :4, 0].tolist() == [0, 1, 2, 10]
    assert keys[1, 0, :4, 0].tolist() == [100, 110, 111, 120]


def test_padding_is_not_kept(layer):
    assert layer.get_seq_length() == 3


def test_rows_can_be_chosen_and_repeated(layer):
    layer.batch_repeat_interleave(2)
    assert layer.lengths.tolist() == [3, 3, 1, 1]
    layer.reorder_cache(torch.tensor([2, 0]))
    keys, _ = layer.update(numbered(10, 1), numbered(10, 1), torch.tensor([1, 1]))
    assert keys[0, 0, :2, 0].tolist() == [100, 10]
    assert keys[1, 0, :4, 0].tolist() == [0, 1, 2, 110]


def test_reset_forgets(layer):
    layer.reset()
    keys, _ = layer.update(numbered(10, 1), numbered(10, 1), torch.tensor([1, 1]))
    assert keys.flatten().tolist() == [10, 110]
    assert layer.lengths.tolist() == [1, 1]


def test_cannot_be_cropped(layer):
    assert not layer.is_croppable
    with pytest.raises(NotImplementedError, match="encode them again"):
        layer.crop(-1)


def test_a_recurrent_state_needs_no_convolution():
    layer = RecurrentStateLayer()
    assert not layer.has_previous_state[0]
    layer.update_recurrent_state(torch.ones(2, 3))
    assert layer.has_previous_state[0]
    assert torch.equal(layer.recurrent_states[0], torch.ones(2, 3))
