"""Where the items of histories stand: what their positions are, and the layout of the authors' code."""

from typing import NamedTuple

import torch
from torch import Tensor


class ReferenceLayout(NamedTuple):
    r"""
    Histories as the authors' code lays them out: all padded to one length, the padding an item like any other.

    Fields:
        inputs_embeds (`(b, length, d)`): Item embeddings, with that of row 0 at the padding.
        attention_mask (`(b, length)`): 1 at real positions; for those who want to know, the authors' code does not.
        places (`(b, l)`): Where each of the given positions has gone; beyond a row's end: anything.
    """

    inputs_embeds: Tensor
    attention_mask: Tensor
    places: Tensor

    def gather(self, hidden_states: Tensor) -> Tensor:
        """Bring states `(b, length, d)` of this layout back to the positions `(b, l, d)` that were given."""
        return hidden_states.gather(1, self.places[:, :, None].expand(-1, -1, hidden_states.shape[2]))


def reference_layout(
    inputs_embeds: Tensor, attention_mask: Tensor, padding: Tensor, length: int, side: str
) -> ReferenceLayout:
    r"""
    Pad right-padded histories to `length` as an author's code does.

    Args:
        inputs_embeds (`torch.Tensor` of shape `(b, l, d)`): Item embeddings; `l` is at most `length`.
        attention_mask (`torch.LongTensor` of shape `(b, l)`): 1 at real positions, which come first in each row.
        padding (`torch.Tensor` of shape `(d,)`): What stands at the padding.
        length (`int`): How many positions every history gets.
        side (`str`): `"left"` or `"right"`: where the padding goes.
    """
    b, given, d = inputs_embeds.shape
    lengths = attention_mask.sum(dim=1, keepdim=True)
    shift = length - lengths if side == "left" else torch.zeros_like(lengths)
    real = torch.arange(length, device=shift.device) - shift  # [b, length]: which item, if any, stands there
    is_real = (real >= 0) & (real < lengths)
    # One more row, of padding, for all places without an item.
    with_padding = torch.cat([inputs_embeds, padding.to(inputs_embeds.dtype).expand(b, 1, d)], dim=1)
    source = torch.where(is_real, real, given)
    places = (torch.arange(given, device=shift.device) + shift).clamp(max=length - 1)
    laid_out = with_padding.gather(1, source[:, :, None].expand(-1, -1, d))
    return ReferenceLayout(laid_out, is_real.long(), places)
