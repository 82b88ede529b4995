"""Padding: histories arrive padded on either side, and every encoder sees them padded on the right."""

from typing import NamedTuple

import torch
from torch import Tensor


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


def _expand(order: Tensor, values: Tensor) -> Tensor:
    return order if values.dim() == 2 else order[:, :, None].expand_as(values)
