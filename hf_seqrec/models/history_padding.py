"""Padding: histories arrive padded on either side, and every encoder sees them padded on the right."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Positions (padding counted) that a group of rows should at least have: below, calls cost more than padding.
_POSITIONS_PER_GROUP = 4096


class RightPadded(NamedTuple):
    """
    A batch whose real positions come first in each row.

    Fields:
        attention_mask (`(b, l)`): 1 at real positions, all of them before the first 0 of their row.
        order (`(b, l)` or `None`): where each position stood before; `None` when nothing had to move.
    """

    attention_mask: Tensor
    order: Tensor | None

    def gather(self, values: Tensor) -> Tensor:
        """Bring `(b, l)` or `(b, l, d)` values from the caller's layout into this one."""
        return values if self.order is None else values.gather(1, _expand(self.order, values))

    def scatter(self, values: Tensor) -> Tensor:
        """Take values from this layout back into the caller's."""
        if self.order is None:
            return values
        return torch.empty_like(values).scatter(1, _expand(self.order, values), values)


def right_padded(attention_mask: Tensor) -> RightPadded:
    """Say how to move the real positions of each row to its front, in their order (`(b, l)` mask of 0 and 1)."""
    is_padding = attention_mask == 0
    # A row needs no move when no real position follows a padded one. Under torch.compile the answer would break the
    # graph, so there the move is always made: of row numbers, it costs next to nothing.
    if not torch.compiler.is_compiling() and not (is_padding[:, :-1] & ~is_padding[:, 1:]).any():
        return RightPadded(attention_mask, None)
    # Where each position goes: a stable sort, which ONNX does not have.
    n_real = (~is_padding).sum(dim=1, keepdim=True)
    place = torch.where(is_padding, n_real + is_padding.cumsum(dim=1), (~is_padding).cumsum(dim=1)) - 1
    order = torch.empty_like(place).scatter(
        1, place, torch.arange(place.shape[1], device=place.device).expand_as(place)
    )
    return RightPadded(attention_mask.gather(1, order), order)


def last_real_position(hidden_states: Tensor, attention_mask: Tensor) -> Tensor:
    """Pick `(b, d)`, the last real position of each row, out of right-padded `(b, l, d)` states."""
    return last_of_each(hidden_states, attention_mask.sum(dim=1))[:, 0]


def last_of_each(hidden_states: Tensor, lengths: Tensor | None) -> Tensor:
    """Pick `(b, 1, d)` of `(b, l, d)`: the last of the `lengths` `(b,)` real positions of each row (`None`: all)."""
    if lengths is None:
        return hidden_states[:, -1:]
    last = lengths.clamp(min=1) - 1
    # Not `len`, which is a number when torch traces this for any number of rows.
    return hidden_states[torch.arange(last.shape[0], device=last.device), last][:, None]


def encode_by_length(
    encode: Callable[[Tensor, Tensor], Tensor], inputs_embeds: Tensor, attention_mask: Tensor
) -> Tensor:
    r"""
    Encode rows of similar length together, each group cut to its longest row, so that less padding is computed.

    The result is that of one call on the whole batch, with zeros at the positions that were cut off. Only on a CPU: an
    accelerator would wait for the lengths, and pay for more launches than it saves.

    Args:
        encode (`Callable`): Maps embeddings `(b, l, d)` and their mask `(b, l)` to states `(b, l, d)`, or `(b, d)`.
        inputs_embeds (`torch.Tensor` of shape `(b, l, d)`): Item embeddings, padded on the right.
        attention_mask (`torch.Tensor` of shape `(b, l)`): 1 at real positions, which come first in each row.
    """
    b, l = attention_mask.shape
    n_groups = min(b, b * l // _POSITIONS_PER_GROUP)
    if n_groups < 2 or attention_mask.device.type != "cpu" or torch.compiler.is_compiling():
        return encode(inputs_embeds, attention_mask)
    lengths, by_length = attention_mask.sum(dim=1).sort(descending=True, stable=True)
    states = []
    for rows, lengths_of_rows in zip(by_length.chunk(n_groups), lengths.chunk(n_groups), strict=True):
        longest = max(1, int(lengths_of_rows[0]))
        group = encode(inputs_embeds[rows, :longest], attention_mask[rows, :longest])
        states.append(group if group.dim() == 2 else F.pad(group, (0, 0, 0, l - longest)))
    return torch.cat(states)[by_length.argsort()]


def _expand(order: Tensor, values: Tensor) -> Tensor:
    return order if values.dim() == 2 else order[:, :, None].expand_as(values)
