"""The exponentials of a softmax and their sums on a CPU, compiled by numba: one pass over scores in the cache."""

import torch
from torch import Tensor

from . import numba_kernels as kernels
from .numba_shares import Shares, address

# Vectors of scratch that `exp_and_sum` needs per share.
_SCRATCH = 1


def exp_and_sum(
    scores: Tensor, shift: Tensor | None = None, bias: Tensor | None = None, keep: bool = True
) -> tuple[Tensor, Tensor]:
    """
    `hf_seqrec.models.op_exp_and_sum.exp_and_sum` on a CPU, of scores in float32 or bfloat16.

    Raises:
        TypeError: if the scores are of another type, which torch computes.
    """
    if scores.dtype not in (torch.float32, torch.bfloat16):
        raise TypeError(
            f"The numba kernel takes float32 and bfloat16, got {scores.dtype}. Set `HF_SEQREC_SCAN=chunked`."
        )
    m, n = scores.shape
    assert scores.stride(1) == 1
    finds_shift = shift is None
    shift = torch.empty(m) if shift is None else shift.float().contiguous()
    sums = torch.empty(m)
    bias = None if bias is None else bias.float().contiguous()
    arguments = (
        scores.data_ptr(),
        scores.stride(0) * scores.element_size(),
        *(address(tensor) for tensor in (bias, shift, sums)),
        scores.dtype == torch.bfloat16,
        finds_shift,
        keep,
        n,
    )
    # Rows are not divided.
    Shares(m, 1, m * n).run(_SCRATCH, lambda _, share: kernels.exp_and_sum(*arguments, share))
    return sums, shift
