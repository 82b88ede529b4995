"""What every layer is told of a batch of histories, and how rows of similar length are encoded together."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .history_cache import HistoryCache
from .history_padding import last_of_each

# Positions (padding counted) that a group of rows should at least have: below, calls cost more than padding.
_POSITIONS_PER_GROUP = 4096


class HistoryContext(NamedTuple):
    r"""
    What a layer knows of the histories besides their hidden states, which are padded on the right.

    Fields:
        attention_mask (`torch.LongTensor` of shape `(b, l)`): 1 at real positions, which come first in each row.
        lengths (`torch.LongTensor` of shape `(b,)`, *optional*): Real positions of each row; states stop there.
            `None`: padding counts as items, as in the authors' code of some models.
        cache ([`HistoryCache`], *optional*): State to go on from; every layer updates its own part.
        only_last (`bool`): Only the state at each row's last real position is needed, so a layer may return
            `(b, 1, d)`. Set for the last layer alone.
        visible (`torch.Tensor`, *optional*): What attention may see, where it is not what `attention_mask` says:
            a mask that broadcasts to `(b, h, l, k)`, boolean or added to the scores.
        events (`dict[str, torch.Tensor]`): Further inputs `(b, l)` by name, such as seconds since the previous event.
    """

    attention_mask: Tensor
    lengths: Tensor | None = None
    cache: HistoryCache | None = None
    only_last: bool = False
    visible: Tensor | None = None
    events: dict[str, Tensor] = {}

    @classmethod
    def from_mask(
        cls, attention_mask: Tensor, cache: HistoryCache | None = None, only_last: bool = False
    ) -> "HistoryContext":
        """Make the context of right-padded histories from their mask `(b, l)`."""
        return cls(attention_mask, attention_mask.sum(dim=1), cache, only_last)

    @classmethod
    def with_padding_as_items(cls, hidden_states: Tensor) -> "HistoryContext":
        """Make the context in which every position of `(b, l, d)` counts, as in the authors' code of some models."""
        return cls(torch.ones(hidden_states.shape[:2], dtype=torch.long, device=hidden_states.device))

    def needed(self, hidden_states: Tensor) -> Tensor:
        """Return the states that are needed of `(b, l, d)`: all, or with `only_last` the last of each row."""
        return last_of_each(hidden_states, self.lengths) if self.only_last else hidden_states

    def select(self, rows: Tensor, longest: int) -> "HistoryContext":
        """Return the context of some rows, cut to their first `longest` positions; there must be no cache."""
        assert self.cache is None
        assert self.visible is None
        return self._replace(
            attention_mask=self.attention_mask[rows, :longest],
            lengths=None if self.lengths is None else self.lengths[rows],
            events={name: values[rows, :longest] for name, values in self.events.items()},
        )


def encode_by_length(
    encode: Callable[[Tensor, HistoryContext], Tensor], inputs_embeds: Tensor, context: HistoryContext
) -> Tensor:
    r"""
    Encode rows of similar length together, each group cut to its longest row, so that less padding is computed.

    The result is that of one call on the whole batch, with zeros at the positions that were cut off. Only on a CPU: an
    accelerator would wait for the lengths, and pay for more launches than it saves.

    Args:
        encode (`Callable`): Maps embeddings `(b, l, d)` and their context to states `(b, l, d)`, or `(b, d)`.
        inputs_embeds (`torch.Tensor` of shape `(b, l, d)`): Item embeddings, padded on the right.
        context ([`HistoryContext`]): Of the whole batch, without a cache.
    """
    b, l = context.attention_mask.shape
    n_groups = min(b, b * l // _POSITIONS_PER_GROUP)
    if n_groups < 2 or inputs_embeds.device.type != "cpu" or torch.compiler.is_compiling():
        return encode(inputs_embeds, context)
    lengths, by_length = context.attention_mask.sum(dim=1).sort(descending=True, stable=True)
    states = []
    for rows, lengths_of_rows in zip(by_length.chunk(n_groups), lengths.chunk(n_groups), strict=True):
        longest = max(1, int(lengths_of_rows[0]))
        group = encode(inputs_embeds[rows, :longest], context.select(rows, longest))
        states.append(group if group.dim() == 2 else F.pad(group, (0, 0, 0, l - longest)))
    return torch.cat(states)[by_length.argsort()]
