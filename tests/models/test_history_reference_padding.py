"""Positions and the authors' layout, on numbers that can be followed by hand."""

import pytest
import torch

from hf_seqrec.models.history_cache import HistoryCache
from hf_seqrec.models.history_reference_padding import reference_layout
from hf_seqrec.models.modeling_recmamba import item_positions

MASK = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]])
# Items 1, 2, 3 | 4 | nothing; the rest is junk that must not be seen.
EMBEDS = torch.tensor([[1.0, 2, 3], [4, 70, 70], [70, 70, 70]])[:, :, None]


def test_left():
    layout = reference_layout(EMBEDS, MASK, torch.tensor([9.0]), length=5, side="left")
    assert layout.inputs_embeds[:, :, 0].tolist() == [[9, 9, 1, 2, 3], [9, 9, 9, 9, 4], [9, 9, 9, 9, 9]]
    assert layout.attention_mask.tolist() == [[0, 0, 1, 1, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]]
    back = layout.gather(layout.inputs_embeds)[:, :, 0]
    assert back[MASK == 1].tolist() == [1, 2, 3, 4]


def test_right():
    layout = reference_layout(EMBEDS, MASK, torch.tensor([9.0]), length=4, side="right")
    assert layout.inputs_embeds[:, :, 0].tolist() == [[1, 2, 3, 9], [4, 9, 9, 9], [9, 9, 9, 9]]
    assert layout.attention_mask.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    back = layout.gather(layout.inputs_embeds)[:, :, 0]
    assert back[MASK == 1].tolist() == [1, 2, 3, 4]


def test_positions_count_on_in_each_row():
    cache = HistoryCache()
    assert item_positions(MASK, 6).tolist() == [[0, 1, 2]]
    assert item_positions(MASK, 6, cache).tolist() == [[0, 1, 2]]
    assert item_positions(MASK, 6, cache).tolist() == [[3, 4, 5], [1, 2, 3], [0, 1, 2]]
    # Beyond a row's end positions stay within the embedding.
    assert item_positions(torch.tensor([[0, 0], [1, 0], [1, 1]]), 6, cache).tolist() == [[5, 5], [2, 3], [0, 1]]
    with pytest.raises(ValueError, match="a history of 7 items, but this model has 6 positions"):
        item_positions(MASK[:, :1], 6, cache)
