"""Dropout on a CPU, compiled by numba: which numbers are dropped follows from a seed, so no mask is kept."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import numba_kernels as kernels
from .numba_shares import Shares

# Vectors of scratch that the kernel needs per share.
_SCRATCH = 1


def dropout(x: Tensor, p: float) -> Tensor:
    r"""
    Zero numbers with probability `p` and scale the others by `1 / (1 - p)`: float32 or bfloat16, on a CPU.

    A call draws one number from torch's generator, and makes all its decisions from that and from places in `x`; so
    the same seed gives the same result, whatever the number of threads.

    Raises:
        TypeError: if `x` is of another type.
    """
    if x.dtype not in (torch.float32, torch.bfloat16):
        raise TypeError(f"The numba kernel takes float32 and bfloat16, got {x.dtype}. Set `HF_SEQREC_SCAN=chunked`.")
    return _Dropout.apply(x, p, int(torch.empty((), dtype=torch.int64).random_(-(2**63), None)))


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float, seed: int) -> Tensor:
        ctx.p, ctx.seed = p, seed
        return _dropped(x, p, seed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, None, None]:
        return _dropped(grad_y, ctx.p, ctx.seed), None, None


def _dropped(x: Tensor, p: float, seed: int) -> Tensor:
    x = x.contiguous()
    y, n = torch.empty_like(x), x.numel()
    arguments = (
        *(tensor.data_ptr() for tensor in (x, y)),
        *(seed, seed >> 32, round(p * 2**32)),
        x.dtype == torch.bfloat16,
        1 / (1 - p),
        n,
    )
    runs = -(-n // kernels.DROPOUT_RUN)
    Shares(runs, 1, n).run(_SCRATCH, lambda _, share: kernels.dropout(*arguments, share))
    return y
