"""
The selective scan as ONNX's own `Scan`, for `hf_seqrec.checkpoints.export_onnx`; needs the extra `onnx`.

A loop over positions cannot be traced for every length at once. So while a model is exported its recurrence is one
torch operator, which `translations` turns into a `Scan` node: of any length, and any number of rows.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import onnx_functions


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
    """`hf_seqrec.models.op_selective_scan.selective_scan` in float32, in a form that torch can export."""
    x, delta, A, B, C = (tensor.float() for tensor in (x, delta, A, B, C))
    if delta_bias is not None:
        delta = delta + delta_bias
    if delta_softplus:
        delta = torch.nn.functional.softplus(delta)
    beyond = None
    if lengths is not None:
        beyond = (torch.arange(x.shape[1], device=x.device) >= lengths[:, None])[:, :, None]
        # A step of size zero leaves the state as it is.
        delta = delta.masked_fill(beyond, 0)
    if initial_state is None:
        initial_state = x.new_zeros(x.shape[0], *A.shape)
    y, state = _recurrence(delta * x, delta, A, B, C, initial_state)
    if D is not None:
        y = y + D * x
    if z is not None:
        y = y * torch.nn.functional.silu(z)
    return (y if beyond is None else y.masked_fill(beyond, 0)), state


@torch.library.custom_op("hf_seqrec::onnx_scan", mutates_args=())
def _recurrence(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor
) -> tuple[Tensor, Tensor]:
    """`h_t = exp(delta_t A) h_{t-1} + u_t B_t`, `y_t = C_t h_t`: all `y`, `(b, l, d)`, and the last `h`."""
    outputs, state = [], initial_state
    for u_t, delta_t, B_t, C_t in zip(*(tensor.unbind(1) for tensor in (u, delta, B, C)), strict=True):
        state = torch.exp(delta_t[:, :, None] * A) * state + u_t[:, :, None] * B_t[:, None]
        outputs.append((state * C_t[:, None]).sum(dim=-1))
    return torch.stack(outputs, dim=1), state


@_recurrence.register_fake
def _(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(u), torch.empty_like(initial_state)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return what `torch.onnx.export` has to know as its `custom_translation_table`."""
    return {torch.ops.hf_seqrec.onnx_scan.default: onnx_functions.selective_scan}
