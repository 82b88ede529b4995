"""Training objectives over the catalog, computed without the `(positions, v)` tensor of scores."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Scores held at once: 2**19 float32 are 2 MiB, which stay in the second-level caches of two cores while a chunk is
# multiplied, normalised and multiplied again.
_SCORES_AT_ONCE = 2**19


def full_softmax_loss(
    hidden_states: Tensor,
    item_embeddings: Tensor,
    labels: Tensor,
    bias: Tensor | None = None,
    num_items_in_batch: Tensor | int | None = None,
) -> Tensor:
    r"""
    Cross-entropy of the right item against the whole catalog, averaged over the positions given (a scalar).

    The same number as `torch.nn.functional.cross_entropy` on the full scores with the padding row at `-inf`. The
    gradient is formed chunk by chunk in the forward pass, while the chunk's scores are in the cache.

    Args:
        hidden_states (`torch.Tensor` of shape `(m, d)`): Encoder output at the positions that carry a label.
        item_embeddings (`torch.Tensor` of shape `(v, d)`): Output embedding of every catalog row.
        labels (`torch.LongTensor` of shape `(m,)`): Right item of each position, in `1..v-1`.
        bias (`torch.Tensor` of shape `(v,)`, *optional*): Added to the scores.
        num_items_in_batch (`int` or scalar tensor, *optional*): Divides the sum instead of `m`, as Trainer does it to
            average over accumulated batches and over processes.

    Raises:
        ValueError: if there is no position.
    """
    if labels.numel() == 0:
        raise ValueError("No position carries a label, so there is nothing to learn: every label is -100.")
    if num_items_in_batch is None:
        num_items_in_batch = labels.numel()
    elif isinstance(num_items_in_batch, Tensor):
        num_items_in_batch = num_items_in_batch.to(hidden_states.device)
    if torch.is_autocast_enabled(hidden_states.device.type):
        hidden_states = hidden_states.to(torch.get_autocast_dtype(hidden_states.device.type))
    return _FullSoftmaxLoss.apply(hidden_states, item_embeddings, labels, bias) / num_items_in_batch


class _FullSoftmaxLoss(torch.autograd.Function):
    """Sum over positions of `logsumexp(scores) - score of the right item`, in float32."""

    @staticmethod
    def forward(
        ctx: Any, hidden_states: Tensor, item_embeddings: Tensor, labels: Tensor, bias: Tensor | None
    ) -> Tensor:
        with torch.autocast(hidden_states.device.type, enabled=False):
            return _FullSoftmaxLoss._forward(ctx, hidden_states, item_embeddings, labels, bias)

    @staticmethod
    def _forward(
        ctx: Any, hidden_states: Tensor, item_embeddings: Tensor, labels: Tensor, bias: Tensor | None
    ) -> Tensor:
        weight = item_embeddings.to(hidden_states.dtype)
        needs_hidden, needs_items, _, needs_bias = ctx.needs_input_grad
        grad_hidden = torch.empty_like(hidden_states) if needs_hidden else None
        # Summed over chunks, so kept in float32 whatever the scores are computed in.
        grad_items = torch.zeros_like(item_embeddings, dtype=torch.float32) if needs_items else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if needs_bias and bias is not None else None

        loss = torch.zeros((), dtype=torch.float32, device=hidden_states.device)
        chunk = max(1, _SCORES_AT_ONCE // len(weight))
        for start in range(0, len(labels), chunk):
            hidden, label = hidden_states[start : start + chunk], labels[start : start + chunk, None]
            scores = (hidden @ weight.T).float()  # [chunk, v]
            if bias is not None:
                scores += bias
            scores[:, 0] = -torch.inf
            right_score = scores.gather(1, label).squeeze(1)
            highest = scores.amax(dim=1)
            probabilities = torch.softmax(scores, dim=1)
            # log-sum-exp without a second pass of exponentials: the highest score has probability exp(highest - lse).
            log_sum_exp = highest - probabilities.amax(dim=1).log()
            loss += (log_sum_exp - right_score).sum()
            if not any(ctx.needs_input_grad):
                continue
            # d loss / d scores = probabilities - one-hot(label)
            probabilities.scatter_add_(1, label, torch.full_like(label, -1, dtype=torch.float32))
            if grad_bias is not None:
                grad_bias += probabilities.sum(dim=0)
            grad_scores = probabilities.to(weight.dtype)
            if grad_hidden is not None:
                torch.mm(grad_scores, weight, out=grad_hidden[start : start + chunk])
            if grad_items is not None:
                if grad_scores.dtype == torch.float32:
                    grad_items.addmm_(grad_scores.T, hidden)
                else:
                    grad_items += grad_scores.T @ hidden
        ctx.save_for_backward(grad_hidden, grad_items, grad_bias)
        ctx.item_dtype = item_embeddings.dtype
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, Tensor | None, None, Tensor | None]:
        grad_hidden, grad_items, grad_bias = (
            None if gradient is None else gradient * grad_loss.to(gradient.dtype) for gradient in ctx.saved_tensors
        )
        return grad_hidden, None if grad_items is None else grad_items.to(ctx.item_dtype), None, grad_bias
