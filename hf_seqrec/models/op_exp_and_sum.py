"""The exponentials of a softmax and their sums: their definition, and the choice of a faster way."""

import torch
from torch import Tensor

from .op_backends import faster_op, wanted_backend


def exp_and_sum(
    scores: Tensor, shift: Tensor | None = None, bias: Tensor | None = None, keep: bool = True
) -> tuple[Tensor, Tensor]:
    r"""
    Sum `exp(scores + bias - shift)` over each row, and return the sums and the shift, float32 `(m,)` each.

    `exp_and_sum_reference` is the definition; on a device with a backend in `hf_seqrec.ops` that one is used.

    Args:
        scores (`torch.Tensor` of shape `(m, n)`): Overwritten: with the exponentials, where they are kept.
        shift (`torch.Tensor` of shape `(m,)`, *optional*): Subtracted from each row; by default its highest number.
        bias (`torch.Tensor` of shape `(n,)`, *optional*): Added to each row.
        keep (`bool`, *optional*, defaults to `True`): Whether `scores` shall hold the exponentials afterwards; if not,
            they may hold anything.
    """
    faster = None
    # Of the scan's backends numba's alone has it; who insists on another gets torch's.
    may_be_faster = wanted_backend(None) in (None, "numba") and scores.dtype in (torch.float32, torch.bfloat16)
    if may_be_faster and not torch.compiler.is_compiling():
        faster = faster_op("exp_and_sum", scores.device.type)
    return (faster or exp_and_sum_reference)(scores, shift, bias, keep)


def exp_and_sum_reference(
    scores: Tensor, shift: Tensor | None = None, bias: Tensor | None = None, keep: bool = True
) -> tuple[Tensor, Tensor]:
    """Definition of `exp_and_sum`, in torch on any device; computed in float32 whatever the scores are stored in."""
    exponentials = scores.float()
    if bias is not None:
        exponentials.add_(bias)
    shift = exponentials.amax(dim=1) if shift is None else shift.float()
    exponentials.sub_(shift[:, None]).exp_()
    if keep and exponentials is not scores:
        scores.copy_(exponentials)
    return exponentials.sum(dim=1), shift
