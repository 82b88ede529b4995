"""Self-attention through transformers' attention interface, and what each history's queries may see."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_seqrec import SeqRecConfig
from .history_cache import HistoryCache
from .history_context import HistoryContext
from .layer_dropout import Dropout


class SelfAttention(nn.Module):
    r"""
    Multi-head attention (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, Section 3.2) within each history.

    `out_proj(softmax(Q K^T / sqrt(d / h)) V)` with `Q = q_proj(x)`, `K = k_proj(y)`, `V = v_proj(y)`, where `y = x`
    unless said otherwise. `k_proj` has no bias: it would add the same number to all scores of a query, which the
    softmax takes away again; weights of layers that have one mean the same without it.

    `config.attn_implementation` chooses who computes it: `"sdpa"`, `"eager"` (returns the weights on request) or
    `"flash_attention_2"` where that is installed.

    Args:
        config ([`SeqRecConfig`]): With `num_attention_heads` and `attention_probs_dropout_prob`.
        layer_idx (`int`): Place of this layer's keys and values in a cache.
        is_causal (`bool`): Whether an item sees only itself and what came before it.
    """

    def __init__(self, config: SeqRecConfig, layer_idx: int, is_causal: bool) -> None:
        super().__init__()
        # transformers' flash attention reads it, and `set_attn_implementation` writes to it.
        self.config = config
        self.layer_idx = layer_idx
        self.is_causal = is_causal
        self.head_size = config.hidden_size // config.num_attention_heads
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = Dropout(config.attention_probs_dropout_prob)

    def forward(
        self, hidden_states: Tensor, context: HistoryContext, key_value_states: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        r"""
        Map `(b, q, d)` to `(b, q, d)`, and return the attention weights `(b, h, q, k)` where they are at hand.

        Args:
            hidden_states (`torch.Tensor` of shape `(b, q, d)`): Where queries come from: all positions, or with
                `context.only_last` the last one of each row.
            context ([`HistoryContext`]): With `visible` as [`causal_view`] or [`bidirectional_view`] says.
            key_value_states (`torch.Tensor` of shape `(b, l, d)`, *optional*): Where keys and values come from, if not
                from the same.
        """
        source = hidden_states if key_value_states is None else key_value_states
        query = self._split_heads(self.q_proj(hidden_states))
        key, value = self._split_heads(self.k_proj(source)), self._split_heads(self.v_proj(source))
        visible = context.visible
        if context.only_last:
            visible = last_view(context.attention_mask, context.cache, self.layer_idx)
        if context.cache is not None:
            assert context.lengths is not None  # every model that goes on from a cache counts them
            key, value = context.cache.append(self.layer_idx, key, value, context.lengths)

        implementation = self.config._attn_implementation
        # Flash kernels know causality and padding, but not rows that go on from states of different lengths.
        if "flash" in implementation and visible is not None and visible.dim() == 4:
            implementation = "sdpa"
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention)
        mixed, weights = attend(
            self,
            query,
            key,
            value,
            visible,
            dropout=self.dropout.p if self.training else 0.0,
            scaling=self.head_size**-0.5,
        )
        return self.out_proj(mixed.flatten(2)), weights  # [b, l, h, d / h] to [b, l, d]

    def _split_heads(self, states: Tensor) -> Tensor:
        return states.unflatten(2, (-1, self.head_size)).transpose(1, 2)  # [b, h, l, d / h]


def eager_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor | None,
    dropout: float,
    scaling: float,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Compute attention by its definition: `(b, l, h, d / h)` outputs and `(b, h, l, k)` weights."""
    scores = query @ key.transpose(2, 3) * scaling
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if visible is not None and visible.dtype == torch.bool:
        scores = scores.masked_fill(~visible, -torch.inf)
    elif visible is not None:
        scores = scores + visible
    weights = torch.softmax(scores, dim=-1).to(value.dtype)
    weights = nn.functional.dropout(weights, dropout, module.training)
    return (weights @ value).transpose(1, 2), weights


class CausalView(NamedTuple):
    """
    Where the items of one call stand in their histories, and what they may see.

    Fields:
        positions (`(b, l)` or `(1, l)`): 0 for the first item of the whole history; beyond a row's end: anything
            that an embedding of `config.max_position_embeddings` rows has.
        visible (bool, broadcasts to `(b, h, l, k)`, or `None`): which keys a query sees; `None` where "none of those
            that come later" is all there is to say, and the implementation knows it.
    """

    positions: Tensor
    visible: Tensor | None


def causal_view(
    config: SeqRecConfig, attention_mask: Tensor, cache: HistoryCache | None = None, layer_idx: int = 0
) -> CausalView:
    r"""
    Say where the items of right-padded histories stand, and that each sees itself and what came before it.

    Padding needs no mask here: it comes after all real items of its row, so no real item sees it.

    Args:
        config ([`SeqRecConfig`]): Of the model.
        attention_mask (`torch.LongTensor` of shape `(b, l)`): 1 at real positions, which come first in each row.
        cache ([`HistoryCache`], *optional*): State that the call goes on from.
        layer_idx (`int`, *optional*, defaults to 0): Layer whose keys and values tell the lengths of what came before.

    Raises:
        ValueError: if a history grows beyond the positions that the model has.
    """
    device, longest = attention_mask.device, config.max_position_embeddings
    positions = torch.arange(attention_mask.shape[1], device=device)[None]
    lengths_before = None if cache is None else cache.get(layer_idx, "lengths")
    if lengths_before is None:
        by_itself = config._attn_implementation != "eager"
        return CausalView(positions, None if by_itself else positions <= positions.T)

    places = int((lengths_before + attention_mask.sum(dim=1)).max())
    if longest is not None and places > longest:
        raise ValueError(
            f"`cache` and `input_ids` make a history of {places} items, but this model has {longest} positions "
            "(`config.max_position_embeddings`). Start again without `cache`, from the most recent "
            f"{longest} items or fewer."
        )
    positions = positions + lengths_before[:, None]
    visible = torch.arange(places, device=device) <= positions[:, None, :, None]  # [b, 1, l, places]
    return CausalView(positions if longest is None else positions.clamp(max=longest - 1), visible)


def last_view(attention_mask: Tensor, cache: HistoryCache | None = None, layer_idx: int = 0) -> Tensor:
    r"""
    Say that the last item of each history sees all real items of it, `(b, 1, 1, k)`: a mask for one query a row.

    The arguments are those of [`causal_view`].
    """
    # In an empty row the first place stands in: a softmax over nothing would be NaN, and spoil every gradient.
    lengths, places = attention_mask.sum(dim=1).clamp(min=1), attention_mask.shape[1]
    before = None if cache is None else cache.get(layer_idx, "lengths")
    if before is not None:
        lengths = before + attention_mask.sum(dim=1)
        places = int(lengths.max())
    return (torch.arange(places, device=lengths.device) < lengths[:, None])[:, None, None, :]


def bidirectional_view(config: SeqRecConfig, attention_mask: Tensor) -> Tensor:
    r"""
    Say that every item sees all real items of its history: a mask for [`SelfAttention`].

    Args:
        config ([`SeqRecConfig`]): Of the model.
        attention_mask (`torch.LongTensor` of shape `(b, l)`): 1 at real positions, which come first in each row.
    """
    # Flash attention takes the padding out itself.
    if "flash" in config._attn_implementation:
        return attention_mask
    visible = attention_mask.bool()
    # In an empty row the first place stands in: a softmax over nothing would be NaN, and spoil every gradient.
    visible = visible | (torch.arange(visible.shape[1], device=visible.device) == 0)
    return visible[:, None, None, :]
