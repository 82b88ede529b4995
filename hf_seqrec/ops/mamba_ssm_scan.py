"""
mamba-ssm's selective scan, where somebody has built its CUDA extension; for comparing with the Triton scan.

Its kernels hold `(b, d, l)`, so every tensor is transposed on the way in and out, and know neither an initial state
nor rows of different lengths: those calls go to Triton.
"""

from typing import Any

# The package may be importable without its kernels; the extension tells.
import selective_scan_cuda  # noqa: F401
import torch
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
from torch import Tensor

from .triton_launch import check_dtypes

_MAX_STATE_SIZE = 256


def selective_scan(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    initial_state: Tensor | None = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""
    Selective scan of every row by mamba-ssm's kernel, and the state it ends in.

    Arguments and results as in `selective_scan` of `models/op_selective_scan.py`, save that the final state carries no
    gradient: asking for it raises.

    Raises:
        NotImplementedError: in a backward through the final state.
        TypeError: if an input is neither float32, bfloat16 nor float16.
    """
    if initial_state is not None or lengths is not None or x.numel() == 0 or A.shape[1] > _MAX_STATE_SIZE:
        from . import triton_scan

        return triton_scan.selective_scan(
            x, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state=initial_state, lengths=lengths
        )
    check_dtypes(x=x, delta=delta, A=A, B=B, C=C, D=D, z=z, delta_bias=delta_bias)
    y, state = selective_scan_fn(
        _length_last(x, x.dtype),
        _length_last(delta, x.dtype),
        A.float(),
        _length_last(B, x.dtype),
        _length_last(C, x.dtype),
        D=None if D is None else D.float(),
        z=None if z is None else _length_last(z, x.dtype),
        delta_bias=None if delta_bias is None else delta_bias.float(),
        delta_softplus=delta_softplus,
        return_last_state=True,
    )
    return y.transpose(1, 2), _WithoutGradient.apply(state, y)


def _length_last(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """`(b, l, k)` to a contiguous `(b, k, l)` of the one dtype that the kernel wants."""
    return tensor.to(dtype).transpose(1, 2).contiguous()


class _WithoutGradient(torch.autograd.Function):
    """The final state, tied to the graph of `y` so that a gradient for it cannot get lost unnoticed."""

    @staticmethod
    def forward(ctx: Any, state: Tensor, y: Tensor) -> Tensor:
        return state.detach().clone()

    @staticmethod
    def backward(ctx: Any, grad_state: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError(
            "mamba_ssm's kernel has no gradient for the final state. Unset HF_SEQREC_SCAN, or set it to triton."
        )
