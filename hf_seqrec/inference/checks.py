"""Checks before anything is recommended: weights and scores are finite."""

import torch
from torch import Tensor

from ..models.modeling_seqrec import SeqRecPreTrainedModel

_REASON = "The weights are damaged or the training diverged: check the loss and lower the learning rate."


class NonFiniteScoresError(ValueError):
    """Scores are NaN or infinite: the fault is the model's, not that of who asks."""


def check_finite_weights(model: SeqRecPreTrainedModel) -> None:
    r"""
    Check all weights of a model, in one pass over them.

    Raises:
        ValueError: if one is NaN or infinite; the message names it.
    """
    for name, weight in model.named_parameters():
        # A sum is finite only if all its parts are, and costs less than to look at each of them.
        if weight.is_meta or torch.isfinite(weight.detach().sum(dtype=torch.float32)):
            continue
        is_broken = ~torch.isfinite(weight.detach())
        if is_broken.any():
            row = int(is_broken.nonzero()[0, 0]) if weight.dim() else 0
            raise ValueError(
                f"{int(is_broken.sum())} weights of `model` in {name} are NaN or infinite, row {row} first, so "
                f"nothing can be recommended. {_REASON}"
            )


def check_finite_scores(scores: Tensor) -> None:
    r"""
    Check the best scores `(b, k)` of a batch, best first; `-inf` stands for no item.

    Raises:
        NonFiniteScoresError: if one is NaN or infinite: both come first where scores are sorted.
    """
    if not scores.shape[1]:
        return
    is_broken = scores[:, 0].isnan() | scores[:, 0].isposinf()
    if is_broken.any():
        raise NonFiniteScoresError(
            f"The scores of {int(is_broken.sum())} of the {len(scores)} users of this batch are NaN or infinite, user "
            f"{int(is_broken.nonzero()[0])} first, so nothing can be recommended to them. {_REASON}"
        )
