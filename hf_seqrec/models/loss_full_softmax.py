"""The training objective over the whole catalog, computed without the `(positions, v)` tensor of scores."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .op_exp_and_sum import exp_and_sum

# Scores held at once. On a CPU 4 MiB of float32 a thread, which stay in the last cache while they are multiplied,
# normalised and multiplied again; on an accelerator 256 MiB, enough to keep it busy.
_SCORES_AT_ONCE_PER_THREAD = 2**20
_SCORES_AT_ONCE_ON_ACCELERATORS = 2**26
# Catalogs up to this many rows are scored whole, some positions at a time, with three matrix products, which are slow
# with few positions, whatever the cache holds; larger ones in chunks, which takes four products, but all of a good
# shape and none of them large. `benchmarks/softmax.py` measures both.
_LARGEST_WHOLE_CATALOG = 2**16
_FEWEST_POSITIONS = 128
# Of half precision four times as many: each product over them is converted before it is added to the others.
_FEWEST_POSITIONS_IN_HALF = 512
# Positions that share a chunk of a larger catalog.
_POSITIONS_AT_ONCE = 512


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
            items = item_embeddings[1:].to(hidden_states.dtype)  # without the padding row
            of_items = None if bias is None else bias[1:]
            sums, highest, right = torch.empty(3, len(labels), dtype=torch.float32, device=labels.device)
            weight = torch.ones_like(sums) if weights is None else weights
            gradients = _Gradients(hidden_states, item_embeddings, bias, ctx.needs_input_grad)

            fewest = _FEWEST_POSITIONS if hidden_states.element_size() > 2 else _FEWEST_POSITIONS_IN_HALF
            size = min(len(labels), max(fewest, _scores_at_once(labels.device) // len(item_embeddings)))
            buffer = _buffer(hidden_states, size, len(items))
            for part in _parts(0, len(labels), size):
                scores = _scores(hidden_states[part], items, buffer)  # [chunk, v - 1]
                right[part] = scores.gather(1, labels[part, None] - 1).squeeze(1)
                sums[part], highest[part] = exp_and_sum(scores, None, of_items)
                # d loss / d scores = exponentials / sums - target; what the targets take away is the same for all.
                gradients.add(part, slice(1, None), scores, items, hidden_states[part], weight[part] / sums[part])
            losses = sums.log_().add_(highest).sub_(right)
            if bias is not None:
                losses -= bias[labels]
            gradients.take_targets_away(labels, weight, 1 - label_smoothing)
            if label_smoothing:
                even = _EvenTargets(hidden_states, item_embeddings, bias, weights, label_smoothing)
                losses += even.losses(labels)
                even.add_to_gradients(gradients)
        ctx.save_for_backward(*gradients.in_types_of_inputs())
        return (losses * weight).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_items, grad_bias = (
            None if gradient is None else gradient * grad_loss.to(gradient.dtype) for gradient in ctx.saved_tensors
        )
        return grad_hidden, grad_items, None, grad_bias, None, None


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
        return losses.sum() if weights is None else (losses * weights).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        hidden_states, item_embeddings, labels, bias, weights, log_sum_exp = ctx.saved_tensors
        with torch.autocast(hidden_states.device.type, enabled=False):
            weights = grad_loss.float() * (torch.ones_like(log_sum_exp) if weights is None else weights)
            gradients = _Gradients(hidden_states, item_embeddings, bias, ctx.needs_input_grad)
            buffer = _buffer(hidden_states, *_tile_shape(hidden_states, item_embeddings))
            for positions, rows in _tiles(hidden_states, item_embeddings):
                hidden, items = hidden_states[positions], item_embeddings[rows].to(hidden_states.dtype)
                scores = _scores(hidden, items, buffer)
                exp_and_sum(scores, log_sum_exp[positions], None if bias is None else bias[rows])
                gradients.add(positions, rows, scores, items, hidden, weights[positions])
            gradients.take_targets_away(labels, weights, 1 - ctx.label_smoothing)
            if ctx.label_smoothing:
                even = _EvenTargets(hidden_states, item_embeddings, bias, weights, ctx.label_smoothing)
                even.add_to_gradients(gradients)
        grad_hidden, grad_items, grad_bias = gradients.in_types_of_inputs()
        return grad_hidden, grad_items, None, grad_bias, None, None


class _Gradients:
    """
    Those of hidden states, items and bias, as far as they are needed: sums in float32, whatever is multiplied.

    What the first positions add to some items begins their sum: to fill a large table with zeros before would be one
    more pass over it.
    """

    def __init__(
        self, hidden_states: Tensor, item_embeddings: Tensor, bias: Tensor | None, needed: tuple[bool, ...]
    ) -> None:
        self.inputs = hidden_states, item_embeddings, bias
        needs_hidden, needs_items, _, needs_bias, *_ = needed
        self.hidden = torch.zeros_like(hidden_states, dtype=torch.float32) if needs_hidden else None
        self.items = torch.empty_like(item_embeddings, dtype=torch.float32) if needs_items else None
        self.bias = torch.zeros_like(bias, dtype=torch.float32) if needs_bias and bias is not None else None
        if self.items is not None:
            self.items[0] = 0

    def add(
        self, positions: slice, rows: slice, shares: Tensor, items: Tensor, hidden_states: Tensor, scale: Tensor
    ) -> None:
        r"""
        Add what some items, in proportion to their share, pull each of some positions towards.

        Args:
            positions, rows (`slice`): Which.
            shares (`torch.Tensor` of shape `(m, n)`): Probability of each item, up to a factor for each position.
            items (`torch.Tensor` of shape `(n, d)`), hidden_states (`torch.Tensor` of shape `(m, d)`): Of those.
            scale (`torch.Tensor` of shape `(m,)`): The factor, times the weight of the position.
        """
        column = scale[:, None]
        if self.hidden is not None:
            self.hidden[positions].addcmul_((shares @ items).float(), column)
        if self.items is not None:
            weighted = (hidden_states * column).to(shares.dtype)
            _add_product(self.items[rows], shares.T, weighted, begins=positions.start == 0)
        if self.bias is not None:
            self.bias[rows] += scale.to(shares.dtype) @ shares

    def take_targets_away(self, labels: Tensor, weights: Tensor, given: float) -> None:
        """Subtract what the right items pull towards, of which `given` is asked for."""
        hidden_states, item_embeddings, _ = self.inputs
        if self.hidden is not None:
            right_items = item_embeddings[labels].to(hidden_states.dtype).float()
            self.hidden.addcmul_(right_items, weights[:, None], value=-given)
        if self.items is not None:
            self.items.index_add_(0, labels, hidden_states.float() * weights[:, None], alpha=-given)
        if self.bias is not None:
            self.bias.index_add_(0, labels, weights, alpha=-given)

    def in_types_of_inputs(self) -> list[Tensor | None]:
        """Return them, each in the type of what it is the gradient of."""
        return [
            None if gradient is None or tensor is None else gradient.to(tensor.dtype)
            for gradient, tensor in zip((self.hidden, self.items, self.bias), self.inputs, strict=True)
        ]


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

    def add_to_gradients(self, gradients: _Gradients) -> None:
        """Subtract the even part of the targets, times what multiplies it."""
        hidden_states = self.hidden_states.float()
        weights = hidden_states.new_ones(len(hidden_states)) if self.weights is None else self.weights
        if gradients.hidden is not None:
            gradients.hidden -= self.share * weights[:, None] * self.mean_item
        if gradients.items is not None:
            gradients.items[1:] -= self.share / self.n_items * (weights @ hidden_states)
        if gradients.bias is not None:
            gradients.bias[1:] -= self.share / self.n_items * weights.sum()


def _parts(start: int, stop: int, size: int) -> Iterator[slice]:
    for first in range(start, stop, size):
        yield slice(first, min(first + size, stop))


def _tile_shape(hidden_states: Tensor, item_embeddings: Tensor) -> tuple[int, int]:
    n_positions = max(1, min(len(hidden_states), _POSITIONS_AT_ONCE))
    n_rows = max(1, _scores_at_once(hidden_states.device) // n_positions)
    return n_positions, min(n_rows, len(item_embeddings) - 1)


def _buffer(hidden_states: Tensor, n_positions: int, n_rows: int) -> Tensor:
    """
    Memory for scores `(n_positions, n_rows)`, to be used again and again: fresh pages take as long as filling them.

    Rows that lie a round number of bytes apart share a few places of a CPU's cache, where a column does not fit in.
    """
    gap = 0 if n_rows % 64 else 16
    return hidden_states.new_empty(n_positions, n_rows + gap)[:, :n_rows]


def _scores(hidden_states: Tensor, items: Tensor, buffer: Tensor) -> Tensor:
    return torch.mm(hidden_states, items.T, out=buffer[: len(hidden_states), : len(items)])


def _tiles(hidden_states: Tensor, item_embeddings: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield positions and items whose scores are held at once; all positions before the next items."""
    n_positions, n_rows = _tile_shape(hidden_states, item_embeddings)
    for rows in _parts(1, len(item_embeddings), n_rows):
        for positions in _parts(0, len(hidden_states), n_positions):
            yield positions, rows


def _log_sum_exp(hidden_states: Tensor, item_embeddings: Tensor, bias: Tensor | None) -> Tensor:
    """Return `logsumexp(scores)` over all items `(m,)`, with one pass over the scores where they are not far apart."""

    def tiles_of_scores(hidden_states: Tensor) -> Iterator[tuple[slice, slice, Tensor, Tensor | None]]:
        buffer = _buffer(hidden_states, *_tile_shape(hidden_states, item_embeddings))
        for positions, rows in _tiles(hidden_states, item_embeddings):
            scores = _scores(hidden_states[positions], item_embeddings[rows].to(hidden_states.dtype), buffer)
            yield positions, rows, scores, None if bias is None else bias[rows]

    def sums(hidden_states: Tensor, highest: Tensor | None) -> tuple[Tensor, Tensor]:
        """Sum `exp(score - highest)`; without `highest`, against the highest score of the first items."""
        total = torch.zeros(len(hidden_states), dtype=torch.float32, device=hidden_states.device)
        shift = torch.empty_like(total) if highest is None else highest
        for positions, rows, scores, of_rows in tiles_of_scores(hidden_states):
            finds_shift = highest is None and rows.start == 1
            given = None if finds_shift else shift[positions]
            of_tile, shift[positions] = exp_and_sum(scores, given, of_rows, keep=False)
            total[positions] += of_tile
        return total, shift

    # The first items hold one of the terms 1, so nothing that counts is lost below; above, up to exp(88) has room.
    total, shift = sums(hidden_states, None)
    overflowed = total.isinf()
    if overflowed.any():
        hidden_states = hidden_states[overflowed]
        highest = torch.full((len(hidden_states),), -torch.inf, dtype=torch.float32, device=total.device)
        for positions, _, scores, of_rows in tiles_of_scores(hidden_states):
            scores = scores.float() if of_rows is None else scores.float().add_(of_rows)
            highest[positions] = torch.maximum(highest[positions], scores.amax(dim=1))
        total[overflowed], shift[overflowed] = sums(hidden_states, highest)
    return total.log_().add_(shift)


def _right_scores(hidden_states: Tensor, item_embeddings: Tensor, labels: Tensor, bias: Tensor | None) -> Tensor:
    right = (hidden_states.float() * item_embeddings[labels].to(hidden_states.dtype).float()).sum(dim=1)
    return right if bias is None else right + bias[labels]


def _add_product(total: Tensor, left: Tensor, right: Tensor, begins: bool) -> None:
    """Add a matrix product to a float32 sum, or begin it."""
    if left.dtype == total.dtype:
        total.addmm_(left, right, beta=0 if begins else 1)
    elif begins:
        total.copy_(left @ right)
    else:
        total += left @ right
