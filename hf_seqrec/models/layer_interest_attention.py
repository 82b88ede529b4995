"""Attention to a few interests pooled from the history: over what came before each item, or over all of it."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .configuration_state_space import WholeHistoryConfig
from .history_context import HistoryContext
from .layer_dropout import Dropout

# Positions whose interests are pooled together. Per position, the work and memory within a chunk grow with it, those
# between chunks with the number of chunks.
_CHUNK = 16

# Log-weight of what does not count. Finite, so that a row without any item stays free of NaN.
_NOTHING = -1e30


class InterestAttention(nn.Module):
    r"""
    Low-rank self-attention (Fan et al. 2021, LightSANs, https://doi.org/10.1145/3404835.3462978), causal.

    With `q, k, v` projections of `x` and learned interests `theta` of width d, position t pools what it has seen into
    one key and one value for each interest j, and attends to these instead of to the items:

        K_tj = sum_{i <= t} softmax_{i <= t}(k_i theta^K_j) k_i         and likewise V_tj with theta^V
        y_t = LayerNorm(x_t + sum_j softmax_j(q_t K_tj / sqrt(d / h)) V_tj)        per head of width d / h

    A mean with softmax weights goes on from what it was: the state is `K_j`, `V_j` and the logarithms of their
    weights, whatever the history's length, and nothing can overflow. `k_proj` has no bias: it would add the same
    number to all scores of a query, which the softmax takes away again.

    Args:
        config ([`WholeHistoryConfig`]): With `num_interests`, `num_attention_heads`, `attention_probs_dropout_prob`.
        layer_idx (`int`): Place of this layer's state in a cache.
    """

    has_key_bias = False

    def __init__(self, config: WholeHistoryConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.head_size = config.hidden_size // config.num_attention_heads
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=self.has_key_bias)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.key_interests = nn.Parameter(torch.empty(config.hidden_size, config.num_interests))
        self.value_interests = nn.Parameter(torch.empty(config.hidden_size, config.num_interests))
        self.attention_dropout = Dropout(config.attention_probs_dropout_prob)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: Tensor, context: HistoryContext) -> Tensor:
        """Map `(b, l, d)` to `(b, l, d)`, going on from the interests in `context.cache`."""
        attention_mask, cache = context.attention_mask, context.cache
        query, key, value = self.q_proj(hidden_states), self.k_proj(hidden_states), self.v_proj(hidden_states)
        dtype = torch.promote_types(query.dtype, torch.float32)
        with torch.autocast(query.device.type, enabled=False):
            query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
            states = None
            if cache is not None:
                states = cache.get(self.layer_idx, "interests")
            key_state, value_state = (None, None) if states is None else states.unbind(1)
            keys = _pool_prefixes(key, key @ self.key_interests.to(dtype), attention_mask, key_state)
            values = _pool_prefixes(value, value @ self.value_interests.to(dtype), attention_mask, value_state)
            mixed = self._attend(_in_chunks(query), keys, values).flatten(1, 2)[:, : query.shape[1]]
        if cache is not None:
            states = torch.stack([keys.state, values.state], dim=1)
            cache.set(self.layer_idx, "interests", states)
        return self.layer_norm(self.dropout(mixed.to(hidden_states.dtype)) + hidden_states)

    def _attend(self, query: Tensor, keys: "_PooledPrefixes", values: "_PooledPrefixes") -> Tensor:
        r"""
        Attend from each position to its interests, `(b, m, c, d)`, without ever writing down the interests of each.

        An interest is a mean of the chunk's items and of what came before the chunk: so is every product with it.
        """
        query, key, value, key_before, value_before = (
            tensor.unflatten(-1, (-1, self.head_size))
            for tensor in (query, keys.items, values.items, keys.before, values.before)
        )
        to_items = torch.einsum("bmthe,bmihe->bmhti", query, key)
        scores = torch.einsum("bmhti,bmnti->bmhtn", to_items, keys.item_weights)
        scores = scores + torch.einsum("bmthe,bmnhe->bmhtn", query, key_before) * keys.before_weights
        weights = self.attention_dropout(torch.softmax(scores / self.head_size**0.5, dim=-1))
        to_items = torch.einsum("bmhtn,bmnti->bmhti", weights, values.item_weights)
        mixed = torch.einsum("bmhti,bmihe->bmthe", to_items, value)
        mixed = mixed + torch.einsum("bmhtn,bmnhe->bmthe", weights * values.before_weights, value_before)
        return mixed.flatten(-2)


class ReferenceInterestAttention(InterestAttention):
    r"""
    The same layer with the arithmetic of RecBole's LightSANs and of MLSA4Rec's code, which sees the future.

    All positions share the interests, pooled from the whole history, and the softmax of the attention runs over the
    positions that ask instead of over the interests:

        K_j = sum_i softmax_i(k_i theta^K_j) k_i                and likewise V_j with theta^V
        y_t = LayerNorm(x_t + sum_j softmax_t(q_t K_j / sqrt(d / h)) V_j)
    """

    # Here it counts: the softmax compares queries, not keys.
    has_key_bias = True

    def forward(self, hidden_states: Tensor, context: HistoryContext) -> Tensor:
        """Map `(b, l, d)` to `(b, l, d)`, padding included; there is neither a mask nor a state."""
        query, key, value = self.q_proj(hidden_states), self.k_proj(hidden_states), self.v_proj(hidden_states)
        key = torch.softmax(key @ self.key_interests, dim=1).transpose(1, 2) @ key  # [b, n, d]
        value = torch.softmax(value @ self.value_interests, dim=1).transpose(1, 2) @ value
        query, key, value = (tensor.unflatten(2, (-1, self.head_size)) for tensor in (query, key, value))
        scores = torch.einsum("bthe,bnhe->bhtn", query, key) / self.head_size**0.5
        weights = self.attention_dropout(torch.softmax(scores, dim=2))
        mixed = torch.einsum("bhtn,bnhe->bthe", weights, value).flatten(2)
        return self.layer_norm(self.dropout(mixed) + hidden_states)


class _PooledPrefixes(NamedTuple):
    r"""
    Softmax-weighted means of every prefix of a history, n of them at each position.

    The positions are cut into m chunks of c. Mean j at position t of a chunk is

        before_weights[t, j] * before[j] + sum_i item_weights[j, t, i] * items[i]

    Fields:
        items (`(b, m, c, d)`): What is averaged, in chunks.
        item_weights (`(b, m, n, c, c)`): Weight of each item of the chunk at each of its positions.
        before (`(b, m, n, d)`): Means of all that comes before each chunk.
        before_weights (`(b, m, 1, c, n)`): Their weight at each position of the chunk, alike for all heads.
        state (`(b, n, d + 1)`): Means after the last position, and the logarithms of their weights.
    """

    items: Tensor
    item_weights: Tensor
    before: Tensor
    before_weights: Tensor
    state: Tensor


def _pool_prefixes(
    items: Tensor, scores: Tensor, attention_mask: Tensor | None, state: Tensor | None
) -> _PooledPrefixes:
    r"""
    Average every prefix of `items` `(b, l, d)` with weights `exp(scores)`, `(b, l, n)`, going on from `state`.

    Positions where `attention_mask` `(b, l)` is 0 weigh nothing.
    """
    if attention_mask is not None:
        scores = scores.masked_fill((attention_mask == 0)[:, :, None], _NOTHING)
    if state is None:
        state = F.pad(items.new_zeros(items.shape[0], scores.shape[2], items.shape[2]), (0, 1), value=_NOTHING)
    items = _in_chunks(items)  # [b, m, c, d]
    scores = _in_chunks(scores, _NOTHING).transpose(2, 3)  # [b, m, n, c]

    # One level up, chunks are items: their mean, and the logarithm of its weight. First comes what came before them.
    means = torch.cat([state[:, None, :, :-1], torch.softmax(scores, dim=-1) @ items], dim=1)  # [b, 1 + m, n, d]
    log_weights = torch.cat([state[:, None, :, -1], scores.logsumexp(dim=-1)], dim=1)  # [b, 1 + m, n]
    weights = _of_prefixes(log_weights.transpose(1, 2))  # [b, n, 1 + m, 1 + m]
    means = torch.einsum("bnpq,bqnd->bpnd", torch.softmax(weights, dim=-1), means)
    log_weights = weights.logsumexp(dim=-1).transpose(1, 2)  # [b, 1 + m, n]

    log_weights_before = log_weights[:, :-1, :, None, None].expand(-1, -1, -1, scores.shape[3], 1)
    weights = torch.softmax(
        torch.cat([log_weights_before, _of_prefixes(scores)], dim=-1), dim=-1
    )  # [b, m, n, c, 1 + c]
    return _PooledPrefixes(
        items=items,
        item_weights=weights[..., 1:],
        before=means[:, :-1],
        before_weights=weights[..., 0].transpose(2, 3)[:, :, None],
        state=torch.cat([means[:, -1], log_weights[:, -1, :, None]], dim=-1),
    )


def _of_prefixes(scores: Tensor) -> Tensor:
    """Repeat `(..., c)` scores for each prefix, `(..., c, c)`, with what comes later at minus infinity."""
    places = torch.arange(scores.shape[-1], device=scores.device)
    return scores[..., None, :].masked_fill(places > places[:, None], -torch.inf)


def _in_chunks(tensor: Tensor, padding: float = 0.0) -> Tensor:
    """Cut `(b, l, x)` into chunks of positions, `(b, m, c, x)`, the last one filled up."""
    length = tensor.shape[1]
    if torch.compiler.is_exporting():
        # Of any length, which cannot be cut into chunks: one chunk, in memory that grows with the square of it.
        return tensor[:, None]
    chunk = min(_CHUNK, length)
    return F.pad(tensor, (0, 0, 0, -length % chunk), value=padding).unflatten(1, (-1, chunk))
