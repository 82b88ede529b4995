"""The training objective over the whole catalog, computed without the `(positions, v)` tensor of scores."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Scores held at once, in float32. On a CPU half a MiB a thread, which stays in a core's second-level cache while it is
# multiplied, normalised and multiplied again; on an accelerator 256 MiB, enough to keep it busy.
_SCORES_AT_ONCE_PER_THREAD = 2**17
_SCORES_AT_ONCE_ON_ACCELERATORS = 2**26
# Catalogs up to this many rows are scored whole, some positions at a time, with three matrix products, which are slow
# with few positions, whatever the cache holds; larger ones in chunks, which takes four products, but all of a good
# shape and none of them large. `benchmarks/softmax.py` measures both.
_LARGEST_WHOLE_CATALOG = 2**16
_FEWEST_POSITIONS = 128
# Positions that share a chunk of a larger catalog.
_POSITIONS_AT_ONCE = 512
# Below this a probability has no logarithm in float32 that could be trusted.
_TINY = 1e-30


def full_softmax_loss(
    hidden_states: Tensor,
    item_embeddings: Tensor,
    labels: Tensor,
    bias: Tensor | None = None,
    num_items_in_batch: Tensor | int | None = None,
    label_smoothing: float = 0.0,
    weights: Tensor | None = None,
) -> Tensor:
    r"""
    Cross-entropy of the right item against the whole catalog, averaged over the positions given (a scalar).

    The same number as `torch.nn.functional.cross_entropy` on the full scores without the padding row. Memory does not
    grow with positions times items: the gradient is formed chunk by chunk, while the chunk's scores are in the cache,
    in the forward pass for small catalogs, and from recomputed scores in the backward pass for large ones.

    Args:
        hidden_states (`torch.Tensor` of shape `(m, d)`): Encoder output at the positions that carry a label.
        item_embeddings (`torch.Tensor` of shape `(v, d)`): Output embedding of every catalog row; row 0 is no item.
        labels (`torch.LongTensor` of shape `(m,)`): Right item of each position, in `1..v-1`.
        bias (`torch.Tensor` of shape `(v,)`, *optional*): Added to the scores.
        num_items_in_batch (`int` or scalar tensor, *optional*): Divides the sum instead of `m` (or of the sum of the
            weights), as Trainer does it to average over accumulated batches and over processes.
        label_smoothing (`float`, *optional*, defaults to 0.0): Share of each position's target, in [0, 1], that is
            spread evenly over all items (Szegedy et al. 2016, Section 7, https://arxiv.org/abs/1512.00567).
        weights (`torch.Tensor` of shape `(m,)`, *optional*): How much each position counts; no gradient reaches them.

    Raises:
        ValueError: if there is no position, the smoothing is out of range, or the weights do not fit.
    """
    if labels.numel() == 0:
        raise ValueError("No position carries a label, so there is nothing to learn: every label is -100.")
    if not 0.0 <= label_smoothing <= 1.0:
        raise ValueError(f"`label_smoothing` must be in [0, 1], got {label_smoothing}.")
    if weights is not None:
        if weights.shape != labels.shape:
            raise ValueError(
                f"`weights` must be one number for each of the {labels.numel()} labelled positions, got shape "
                f"{tuple(weights.shape)}."
            )
        weights = weights.detach().float()
    if num_items_in_batch is None:
        num_items_in_batch = labels.numel() if weights is None else weights.sum()
    elif isinstance(num_items_in_batch, Tensor):
        num_items_in_batch = num_items_in_batch.to(hidden_states.device)
    if torch.is_autocast_enabled(hidden_states.device.type):
        hidden_states = hidden_states.to(torch.get_autocast_dtype(hidden_states.device.type))
    loss = _WholeCatalogLoss if len(item_embeddings) <= _LARGEST_WHOLE_CATALOG else _ChunkedCatalogLoss
    return loss.apply(hidden_states, item_embeddings, labels, bias, weights, label_smoothing) / num_items_in_batch


def _scores_at_once(device: torch.device) -> int:
    if device.type == "cpu":
        return _SCORES_AT_ONCE_PER_THREAD * torch.get_num_threads()
    return _SCORES_AT_ONCE_ON_ACCELERATORS


class _WholeCatalogLoss(torch.autograd.Function):
    """Weighted sum over positions of `logsumexp(scores) - score of the target`; gradients in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_states: Tensor,
        item_embeddings: Tensor,
        labels: Tensor,
        bias: Tensor | None,
        weights: Tensor | None,
        label_smoothing: float,
    ) -> Tensor:
        with torch.autocast(hidden_states.device.type, enabled=False):
            items = item_embeddings.to(hidden_states.dtype)
            losses = torch.empty(len(labels), dtype=torch.float32, device=labels.device)
            needs_hidden, needs_items, _, needs_bias, *_ = ctx.needs_input_grad
            grad_hidden = torch.empty_like(hidden_states) if needs_hidden else None
            # Summed over chunks, so kept in float32 whatever the scores are computed in.
            grad_items = torch.zeros_like(item_embeddings, dtype=torch.float32) if needs_items else None
            grad_bias = torch.zeros_like(bias, dtype=torch.float32) if needs_bias and bias is not None else None

            size = max(_FEWEST_POSITIONS, _scores_at_once(labels.device) // len(items))
            for part in _parts(0, len(labels), size):
                hidden, label = hidden_states[part], labels[part, None]
                scores = _scores(hidden, items, bias)  # [chunk, v]
                scores[:, 0] = -torch.inf
                probabilities = torch.softmax(scores, dim=1, out=scores)
                right = probabilities.gather(1, label)
                losses[part] = -right.log().squeeze(1)
                is_tiny = (right < _TINY).squeeze(1)
                if is_tiny.any():
                    losses[part] = torch.where(is_tiny, _exact_losses(hidden, items, bias, label), losses[part])
                if not any(ctx.needs_input_grad):
                    continue
                # d loss / d scores = probabilities - target; what smoothing adds to it is the same for all chunks.
                probabilities.scatter_(1, label, right - (1 - label_smoothing))
                weight = None if weights is None else weights[part, None]
                if grad_bias is not None:
                    grad_bias += (probabilities if weight is None else probabilities * weight).sum(dim=0)
                grad_scores = probabilities.to(items.dtype)
                if grad_hidden is not None:
                    torch.mm(grad_scores, items, out=grad_hidden[part])
                if grad_items is not None:
                    _add_product(grad_items, grad_scores.T, _weighted(hidden, weight))
            if weights is not None and grad_hidden is not None:
                grad_hidden *= weights[:, None]
            if label_smoothing:
                even = _EvenTargets(hidden_states, item_embeddings, bias, weights, label_smoothing)
                losses += even.losses(labels)
                even.add_to_gradients(grad_hidden, grad_items, grad_bias)
        ctx.save_for_backward(grad_hidden, grad_items, grad_bias)
        ctx.item_dtype = item_embeddings.dtype
        return losses.sum() if weights is None else losses @ weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_items, grad_bias = (
            None if gradient is None else gradient * grad_loss.to(gradient.dtype) for gradient in ctx.saved_tensors
        )
        return grad_hidden, None if grad_items is None else grad_items.to(ctx.item_dtype), None, grad_bias, None, None


class _ChunkedCatalogLoss(torch.autograd.Function):
    """The same sum; the forward pass keeps only `logsumexp(scores)`, the backward pass scores once more."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_states: Tensor,
        item_embeddings: Tensor,
        labels: Tensor,
        bias: Tensor | None,
        weights: Tensor | None,
        label_smoothing: float,
    ) -> Tensor:
        with torch.autocast(hidden_states.device.type, enabled=False):
            log_sum_exp = _log_sum_exp(hidden_states, item_embeddings, bias)
            losses = log_sum_exp - _right_scores(hidden_states, item_embeddings, labels, bias)
            if label_smoothing:
                losses += _EvenTargets(hidden_states, item_embeddings, bias, weights, label_smoothing).losses(labels)
        ctx.save_for_backward(hidden_states, item_embeddings, labels, bias, weights, log_sum_exp)
        ctx.label_smoothing = label_smoothing
        return losses.sum() if weights is None else losses @ weights

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        hidden_states, item_embeddings, labels, bias, weights, log_sum_exp = ctx.saved_tensors
        needs_hidden, needs_items, _, needs_bias, *_ = ctx.needs_input_grad
        with torch.autocast(hidden_states.device.type, enabled=False):
            weights = grad_loss.float() * (torch.ones_like(log_sum_exp) if weights is None else weights)
            weight = weights[:, None]
            grad_hidden = torch.zeros_like(hidden_states, dtype=torch.float32) if needs_hidden else None
            grad_items = torch.zeros_like(item_embeddings, dtype=torch.float32) if needs_items else None
            grad_bias = torch.zeros_like(bias, dtype=torch.float32) if needs_bias and bias is not None else None
            weighted = _weighted(hidden_states, weight)
            for positions, rows in _tiles(hidden_states, item_embeddings):
                items = item_embeddings[rows].to(hidden_states.dtype)
                scores = _scores(hidden_states[positions], items, None if bias is None else bias[rows])
                probabilities = scores.sub_(log_sum_exp[positions, None]).exp_()
                if grad_bias is not None:
                    grad_bias[rows] += weights[positions] @ probabilities
                probabilities = probabilities.to(items.dtype)
                if grad_hidden is not None:
                    _add_product(grad_hidden[positions], probabilities, items)
                if grad_items is not None:
                    _add_product(grad_items[rows], probabilities.T, weighted[positions])
            # What the right items take away again.
            given = 1 - ctx.label_smoothing
            if grad_hidden is not None:
                grad_hidden.sub_(item_embeddings[labels], alpha=given).mul_(weight)
            if grad_items is not None:
                grad_items.index_add_(0, labels, weighted.float(), alpha=-given)
            if grad_bias is not None:
                grad_bias.index_add_(0, labels, weights, alpha=-given)
            if ctx.label_smoothing:
                even = _EvenTargets(hidden_states, item_embeddings, bias, weights, ctx.label_smoothing)
                even.add_to_gradients(grad_hidden, grad_items, grad_bias)
        grad_hidden = None if grad_hidden is None else grad_hidden.to(hidden_states.dtype)
        grad_items = None if grad_items is None else grad_items.to(item_embeddings.dtype)
        return grad_hidden, grad_items, None, grad_bias, None, None


class _EvenTargets:
    """What label smoothing adds: a share of each target, spread over all items, is subtracted from the right one."""

    def __init__(
        self,
        hidden_states: Tensor,
        item_embeddings: Tensor,
        bias: Tensor | None,
        weights: Tensor | None,
        share: float,
    ) -> None:
        self.hidden_states, self.item_embeddings, self.bias = hidden_states, item_embeddings, bias
        self.weights, self.share = weights, share
        self.n_items = len(item_embeddings) - 1
        self.mean_item = item_embeddings[1:].mean(dim=0, dtype=torch.float32)

    def losses(self, labels: Tensor) -> Tensor:
        """Return what to add to the losses `(m,)`: a share of the right score, less the mean of all scores."""
        mean_scores = self.hidden_states.float() @ self.mean_item
        if self.bias is not None:
            mean_scores += self.bias[1:].mean()
        right_scores = _right_scores(self.hidden_states, self.item_embeddings, labels, self.bias)
        return self.share * (right_scores - mean_scores)

    def add_to_gradients(
        self, grad_hidden: Tensor | None, grad_items: Tensor | None, grad_bias: Tensor | None
    ) -> None:
        """Subtract the even part of the targets, times what multiplies it, from the gradients, in place."""
        weights = self.hidden_states.new_ones(len(self.hidden_states)) if self.weights is None else self.weights
        if grad_hidden is not None:
            grad_hidden -= self.share * weights[:, None] * self.mean_item
        if grad_items is not None:
            grad_items[1:] -= self.share / self.n_items * (weights.float() @ self.hidden_states.float())
        if grad_bias is not None:
            grad_bias[1:] -= self.share / self.n_items * weights.float().sum()


def _parts(start: int, stop: int, size: int) -> Iterator[slice]:
    for first in range(start, stop, size):
        yield slice(first, min(first + size, stop))


def _tiles(hidden_states: Tensor, item_embeddings: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield positions and items whose scores are held at once; all positions before the next items."""
    n_positions = min(len(hidden_states), _POSITIONS_AT_ONCE)
    n_rows = max(1, _scores_at_once(hidden_states.device) // n_positions)
    for rows in _parts(1, len(item_embeddings), n_rows):
        for positions in _parts(0, len(hidden_states), n_positions):
            yield positions, rows


def _log_sum_exp(hidden_states: Tensor, item_embeddings: Tensor, bias: Tensor | None) -> Tensor:
    """Return `logsumexp(scores)` over all items `(m,)`, with one pass over the scores where they are not far apart."""

    def tiles_of_scores(hidden_states: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
        for positions, rows in _tiles(hidden_states, item_embeddings):
            items = item_embeddings[rows].to(hidden_states.dtype)
            yield positions, rows, _scores(hidden_states[positions], items, None if bias is None else bias[rows])

    def sums(hidden_states: Tensor, highest: Tensor | None) -> tuple[Tensor, Tensor]:
        """Sum `exp(score - highest)`; without `highest`, against the highest score of the first items."""
        total = torch.zeros(len(hidden_states), dtype=torch.float32, device=hidden_states.device)
        shift = torch.empty_like(total) if highest is None else highest
        for positions, rows, scores in tiles_of_scores(hidden_states):
            if highest is None and rows.start == 1:
                shift[positions] = scores.amax(dim=1)
            total[positions] += scores.sub_(shift[positions, None]).exp_().sum(dim=1)
        return total, shift

    # The first items hold one of the terms 1, so nothing that counts is lost below; above, up to exp(88) has room.
    total, shift = sums(hidden_states, None)
    overflowed = total.isinf()
    if overflowed.any():
        hidden_states = hidden_states[overflowed]
        highest = torch.full((len(hidden_states),), -torch.inf, dtype=torch.float32, device=total.device)
        for positions, _, scores in tiles_of_scores(hidden_states):
            highest[positions] = torch.maximum(highest[positions], scores.amax(dim=1))
        total[overflowed], shift[overflowed] = sums(hidden_states, highest)
    return total.log_().add_(shift)


def _scores(hidden_states: Tensor, items: Tensor, bias: Tensor | None) -> Tensor:
    scores = (hidden_states @ items.T).float()
    return scores if bias is None else scores.add_(bias)


def _right_scores(hidden_states: Tensor, item_embeddings: Tensor, labels: Tensor, bias: Tensor | None) -> Tensor:
    right = (hidden_states.float() * item_embeddings[labels].to(hidden_states.dtype).float()).sum(dim=1)
    return right if bias is None else right + bias[labels]


def _exact_losses(hidden_states: Tensor, items: Tensor, bias: Tensor | None, label: Tensor) -> Tensor:
    scores = _scores(hidden_states, items, bias)
    scores[:, 0] = -torch.inf
    return scores.logsumexp(dim=1) - scores.gather(1, label).squeeze(1)


def _weighted(hidden_states: Tensor, weight: Tensor | None) -> Tensor:
    return hidden_states if weight is None else (hidden_states * weight).to(hidden_states.dtype)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add a matrix product to a float32 sum."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
