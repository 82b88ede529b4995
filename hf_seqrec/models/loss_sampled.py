"""Training objectives against a few negatives instead of the whole catalog: no `(positions, n, d)` tensor exists."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Scores against shared negatives, and numbers of gathered embeddings, held at once: 2**18 float32 are 1 MiB, which
# stays in a second-level cache with what is computed from it.
_SCORES_AT_ONCE = 2**18
_GATHERED_AT_ONCE = 2**18


def sampled_softmax_loss(
    hidden_states: Tensor,
    item_embeddings: Tensor,
    labels: Tensor,
    negatives: Tensor,
    negatives_log_q: Tensor,
    bias: Tensor | None = None,
    num_items_in_batch: Tensor | int | None = None,
    sparse_grad: bool = False,
) -> Tensor:
    r"""
    Cross-entropy of the right item against sampled negatives, with the log-q correction (a scalar).

    A negative's score is lowered by the logarithm of how often it is expected among the n draws, `log(n q)`, so that
    the negatives' exponentials sum, in expectation, to those of all other items: the more negatives, the nearer to the
    full softmax (Bengio and Senecal 2008, https://doi.org/10.1109/TNN.2007.912312; Jean et al. 2015, Section 3,
    https://arxiv.org/abs/1412.2007). The right item is there once and not drawn, so its score stays as it is (Blanc
    and Rendle 2018, Section 2, https://arxiv.org/abs/1712.00527).

    Args:
        hidden_states (`torch.Tensor` of shape `(m, d)`): Encoder output at the positions that carry a label.
        item_embeddings (`torch.Tensor` of shape `(v, d)`): Output embedding of every catalog row.
        labels (`torch.LongTensor` of shape `(m,)`): Right item of each position.
        negatives (`torch.LongTensor` of shape `(m, n)` or `(n,)`): Rows drawn with replacement for each position, or
            once for all. Where one of them is the right item it is left out.
        negatives_log_q (`torch.Tensor` of the shape of `negatives`): Log-probability of each to be drawn.
        bias (`torch.Tensor` of shape `(v,)`, *optional*): Added to the scores.
        num_items_in_batch (`int` or scalar tensor, *optional*): Divides the sum instead of `m`, as Trainer does it to
            average over accumulated batches and over processes.
        sparse_grad (`bool`, *optional*, defaults to `False`): Whether the gradients of `item_embeddings` and `bias`
            are sparse tensors, of the rows that occur.

    Raises:
        ValueError: if there is no position, or shapes do not fit.
    """
    if negatives_log_q.shape != negatives.shape:
        raise ValueError(
            f"`negatives_log_q` must have the shape of `negatives`, {tuple(negatives.shape)}, "
            f"got {tuple(negatives_log_q.shape)}."
        )
    log_expected = negatives_log_q + math.log(negatives.shape[-1])

    def losses(right: Tensor, wrong: Tensor, log_expected: Tensor) -> Tensor:
        return torch.cat([right[:, None], wrong - log_expected], dim=1).logsumexp(dim=1) - right

    return _mean_over_positions(
        losses,
        hidden_states,
        item_embeddings,
        labels,
        negatives,
        bias,
        num_items_in_batch,
        sparse_grad,
        log_expected,
    )


def bce_loss(
    hidden_states: Tensor,
    item_embeddings: Tensor,
    labels: Tensor,
    negatives: Tensor,
    bias: Tensor | None = None,
    num_items_in_batch: Tensor | int | None = None,
    sparse_grad: bool = False,
    constant_bias: bool = True,
) -> Tensor:
    r"""
    Binary cross-entropy of the right item (1) and sampled negatives (0), a mean over these n + 1 (a scalar).

    SASRec's loss, with one negative (Kang and McAuley 2018, Equation 6, https://arxiv.org/abs/1808.09781; there the
    two are summed, which is twice as much). With more, an item's probability is `sigmoid(score - log(n))`: as if the
    scores had a constant bias, which no ranking notices, so that where scores are near 0, as they are at first, the
    right item weighs as much as all its negatives. Without it a model first has to learn that almost everything is
    wrong, which it does by moving all item embeddings the same way, and what they share outweighs what tells them
    apart. `constant_bias=False` leaves it out, as published losses do. Arguments as in [`sampled_softmax_loss`].

    Raises:
        ValueError: if there is no position, or shapes do not fit.
    """
    inputs = hidden_states, item_embeddings, labels, negatives, bias, num_items_in_batch, sparse_grad
    return _bce(*inputs, beta=1.0, constant_bias=constant_bias)


def gbce_loss(
    hidden_states: Tensor,
    item_embeddings: Tensor,
    labels: Tensor,
    negatives: Tensor,
    t: float,
    n_items: int,
    bias: Tensor | None = None,
    num_items_in_batch: Tensor | int | None = None,
    sparse_grad: bool = False,
    constant_bias: bool = True,
) -> Tensor:
    r"""
    Binary cross-entropy in which the right item's probability is raised to the power of beta (a scalar).

    `beta = alpha (t (1 - 1 / alpha) + 1 / alpha)`, `alpha = n / (n_items - 1)`, undoes what sampling n negatives adds
    to the predicted probabilities: all of it with `t=1`, nothing with `t=0`, which is [`bce_loss`] (Petrov and
    Macdonald 2023, Equations 11 to 18, https://arxiv.org/abs/2308.07192). As `-log(sigmoid(s)^beta)` it is
    `beta softplus(-s)`, which no score can overflow. The constant bias of [`bce_loss`] is `log(beta / n)` here; the
    published loss is without it (`constant_bias=False`), and draws the negatives of each position by themselves.
    Arguments as in [`sampled_softmax_loss`], and:

    Args:
        t (`float`): Calibration, in [0, 1].
        n_items (`int`): Items of the catalog.

    Raises:
        ValueError: if there is no position, or shapes do not fit.
    """
    beta = gbce_beta(negatives.shape[-1], n_items, t)
    inputs = hidden_states, item_embeddings, labels, negatives, bias, num_items_in_batch, sparse_grad
    return _bce(*inputs, beta=beta, constant_bias=constant_bias)


def gbce_beta(n_negatives: int, n_items: int, t: float) -> float:
    """
    Return gBCE's power of the right item's probability, see [`gbce_loss`].

    Example:

    ```python
    >>> gbce_beta(n_negatives=1, n_items=101, t=0.5)
    0.505
    ```
    """
    alpha = n_negatives / max(n_items - 1, 1)
    # alpha (t (1 - 1 / alpha) + 1 / alpha), multiplied out.
    return t * (alpha - 1) + 1


def bpr_loss(
    hidden_states: Tensor,
    item_embeddings: Tensor,
    labels: Tensor,
    negatives: Tensor,
    bias: Tensor | None = None,
    num_items_in_batch: Tensor | int | None = None,
    sparse_grad: bool = False,
) -> Tensor:
    r"""
    `-log sigmoid(score of the right item - score of a negative)`, a mean over the negatives (a scalar).

    Bayesian personalised ranking (Rendle et al. 2009, Section 4, https://arxiv.org/abs/1205.2618), without its
    regularisation, which is the optimizer's weight decay. Arguments as in [`sampled_softmax_loss`].

    Raises:
        ValueError: if there is no position, or shapes do not fit.
    """

    def losses(right: Tensor, wrong: Tensor) -> Tensor:
        return F.softplus(wrong - right[:, None]).sum(dim=1) / _n_kept(wrong).clamp(min=1)

    return _mean_over_positions(
        losses, hidden_states, item_embeddings, labels, negatives, bias, num_items_in_batch, sparse_grad
    )


def _bce(
    hidden_states: Tensor,
    item_embeddings: Tensor,
    labels: Tensor,
    negatives: Tensor,
    bias: Tensor | None,
    num_items_in_batch: Tensor | int | None,
    sparse_grad: bool,
    beta: float,
    constant_bias: bool,
) -> Tensor:
    bias_of_all = math.log(beta / negatives.shape[-1]) if constant_bias else 0.0

    def losses(right: Tensor, wrong: Tensor) -> Tensor:
        right_loss = beta * F.softplus(-(right + bias_of_all))
        return (right_loss + F.softplus(wrong + bias_of_all).sum(dim=1)) / (1 + _n_kept(wrong))

    return _mean_over_positions(
        losses, hidden_states, item_embeddings, labels, negatives, bias, num_items_in_batch, sparse_grad
    )


def _n_kept(wrong: Tensor) -> Tensor:
    """Count the negatives of each position that are not its right item; those that are have a score of -inf."""
    return (wrong != -torch.inf).sum(dim=1)


def _mean_over_positions(
    losses: Callable[..., Tensor],
    hidden_states: Tensor,
    item_embeddings: Tensor,
    labels: Tensor,
    negatives: Tensor,
    bias: Tensor | None,
    num_items_in_batch: Tensor | int | None,
    sparse_grad: bool,
    *of_negatives: Tensor,
) -> Tensor:
    r"""
    Score the right items and the negatives, and average a loss over the positions.

    Args:
        losses (`Callable`): Makes `(m,)` losses of the right items' scores `(m,)`, the negatives' `(m, n)`, -inf where
            a negative is the right item, and the `of_negatives`.
        of_negatives (`torch.Tensor` of the shape of `negatives`): More that is known of the negatives.
    """
    m = len(labels)
    if m == 0:
        raise ValueError("No position carries a label, so there is nothing to learn: every label is -100.")
    if negatives.dim() not in (1, 2) or (negatives.dim() == 2 and len(negatives) != m) or not negatives.numel():
        raise ValueError(
            f"`negatives` must have the shape (n,), the same for all positions, or ({m}, n), n for each of the "
            f"labelled positions, got {tuple(negatives.shape)}."
        )
    if num_items_in_batch is None:
        num_items_in_batch = m
    elif isinstance(num_items_in_batch, Tensor):
        num_items_in_batch = num_items_in_batch.to(hidden_states.device)

    if negatives.dim() == 2:
        rows = torch.cat([labels[:, None], negatives], dim=1)  # [m, 1 + n]
        scores = _RowScores.apply(hidden_states, item_embeddings, rows, sparse_grad)
        if bias is not None:
            scores = scores + _bias_of(bias, rows, sparse_grad)
        wrong = scores[:, 1:].masked_fill(negatives == labels[:, None], -torch.inf)
        return losses(scores[:, 0], wrong, *of_negatives).sum() / num_items_in_batch

    if torch.is_autocast_enabled(hidden_states.device.type):
        hidden_states = hidden_states.to(torch.get_autocast_dtype(hidden_states.device.type))
    rows = torch.cat([labels, negatives])
    items = F.embedding(rows, item_embeddings, sparse=sparse_grad).to(hidden_states.dtype)
    right_items, wrong_items = items.split([m, len(negatives)])
    biases = rows.new_zeros(len(rows), dtype=torch.float32) if bias is None else _bias_of(bias, rows, sparse_grad)
    right_bias, wrong_bias = biases.split([m, len(negatives)])
    inputs = hidden_states, right_items, wrong_items, right_bias, wrong_bias
    return _SharedLoss.apply(losses, labels, negatives, of_negatives, *inputs) / num_items_in_batch


def _bias_of(bias: Tensor, rows: Tensor, sparse_grad: bool) -> Tensor:
    return bias.gather(0, rows.flatten(), sparse_grad=True).view_as(rows) if sparse_grad else bias[rows]


def _in_float32(scores: Tensor) -> Tensor:
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


class _RowScores(torch.autograd.Function):
    """Scores `(m, c)` of rows `(m, c)`, other ones at each position; gathered again backward, never all at once."""

    @staticmethod
    def forward(ctx: Any, hidden_states: Tensor, item_embeddings: Tensor, rows: Tensor, sparse_grad: bool) -> Tensor:
        hidden = hidden_states.to(item_embeddings.dtype)
        scores = torch.empty(rows.shape, dtype=item_embeddings.dtype, device=hidden.device)
        for part in _RowScores._chunks(rows, hidden.shape[1]):
            scores[part] = (item_embeddings[rows[part]] * hidden[part, None]).sum(dim=2)
        ctx.save_for_backward(hidden, item_embeddings, rows)
        ctx.hidden_dtype, ctx.sparse_grad = hidden_states.dtype, sparse_grad
        return _in_float32(scores)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_scores: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden, items, rows = ctx.saved_tensors
        grad_scores = grad_scores.to(items.dtype)
        grad_hidden = grad_items = None
        if ctx.needs_input_grad[0]:
            # The weighted sum of each position's rows.
            grad_hidden = F.embedding_bag(rows, items, per_sample_weights=grad_scores, mode="sum")
            grad_hidden = grad_hidden.to(ctx.hidden_dtype)
        if ctx.needs_input_grad[1]:
            # Places in the gradient: the rows themselves, or those of its values, one for each row that occurs.
            occurring, places = rows.unique(return_inverse=True) if ctx.sparse_grad else (None, rows)
            grad_items = items.new_zeros((len(items if occurring is None else occurring), items.shape[1]))
            for part in _RowScores._chunks(rows, hidden.shape[1]):
                grads = grad_scores[part, :, None] * hidden[part, None]
                grad_items.index_add_(0, places[part].flatten(), grads.flatten(0, 1))
            if occurring is not None:
                grad_items = torch.sparse_coo_tensor(
                    occurring[None], grad_items, items.shape, is_coalesced=True, check_invariants=False
                )
        return grad_hidden, grad_items, None, None

    @staticmethod
    def _chunks(rows: Tensor, d: int) -> list[slice]:
        size = max(1, _GATHERED_AT_ONCE // (rows.shape[1] * d))
        return [slice(start, start + size) for start in range(0, len(rows), size)]


class _SharedLoss(torch.autograd.Function):
    """Sum of the losses against shared negatives; its gradient is formed while a chunk's scores are in the cache."""

    @staticmethod
    def forward(
        ctx: Any,
        losses: Callable[..., Tensor],
        labels: Tensor,
        negatives: Tensor,
        of_negatives: tuple[Tensor, ...],
        hidden: Tensor,
        right_items: Tensor,
        wrong_items: Tensor,
        right_bias: Tensor,
        wrong_bias: Tensor,
    ) -> Tensor:
        needs_grad = any(ctx.needs_input_grad)
        total = _in_float32(hidden.new_zeros(()))
        grad_hidden, grad_right_items = torch.empty_like(hidden), torch.empty_like(right_items)
        # Summed over chunks, so kept in float32 whatever the scores are computed in.
        grad_wrong_items = torch.zeros_like(wrong_items, dtype=total.dtype)
        grad_right_bias, grad_wrong_bias = torch.empty_like(right_bias), torch.zeros_like(wrong_bias)
        size = max(1, _SCORES_AT_ONCE // len(negatives))
        for start in range(0, len(labels), size):
            part = slice(start, start + size)
            with torch.autocast(hidden.device.type, enabled=False):
                right = _in_float32((hidden[part] * right_items[part]).sum(dim=1)) + right_bias[part]
                wrong = _in_float32(hidden[part] @ wrong_items.T) + wrong_bias
                wrong.masked_fill_(negatives == labels[part, None], -torch.inf)
                with torch.set_grad_enabled(needs_grad):
                    right.requires_grad_(needs_grad)
                    wrong.requires_grad_(needs_grad)
                    loss = losses(right, wrong, *of_negatives).sum()
                total += loss.detach()
                if not needs_grad:
                    continue
                grad_right, grad_wrong = torch.autograd.grad(loss, (right, wrong))
                grad_right_bias[part] = grad_right
                grad_wrong_bias += grad_wrong.sum(dim=0)
                grad_right, grad_wrong = grad_right[:, None].to(hidden.dtype), grad_wrong.to(hidden.dtype)
                grad_right_items[part] = grad_right * hidden[part]
                grad_hidden[part] = torch.addmm(grad_right * right_items[part], grad_wrong, wrong_items)
                grad_wrong_items += grad_wrong.T @ hidden[part]
        gradients = grad_hidden, grad_right_items, grad_wrong_items.to(wrong_items.dtype)
        ctx.save_for_backward(*gradients, grad_right_bias, grad_wrong_bias)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor | None, ...]:
        gradients = (gradient * grad_loss.to(gradient.dtype) for gradient in ctx.saved_tensors)
        return None, None, None, None, *gradients
