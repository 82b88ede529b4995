"""The selective scan on a CPU, compiled by numba; a torch operator, so that `torch.compile` and autograd know it."""

from typing import Any

import torch
from torch import Tensor

from . import numba_kernels as kernels
from .numba_shares import Part, Share, Shares, address, operand, readable


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
    """
    `hf_seqrec.models.op_selective_scan.selective_scan` on a CPU, in float32.

    Raises:
        TypeError: if a tensor is float64, which `selective_scan_chunked` computes.
    """
    output_dtype = x.dtype
    tensors = (x, delta, A, B, C, D, z, delta_bias, initial_state)
    if any(tensor is not None and tensor.dtype == torch.float64 for tensor in tensors):
        raise TypeError("The numba scan computes in float32, got float64. Set `HF_SEQREC_SCAN=chunked` or unset it.")
    # Half precision, as under autocast, would be read as if it were float32.
    x, delta, A, B, C = (tensor.float() for tensor in (x, delta, A, B, C))
    D, z, delta_bias, initial_state = (
        None if tensor is None else tensor.float() for tensor in (D, z, delta_bias, initial_state)
    )
    keep = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)
    lengths = None if lengths is None else lengths.long()
    y, state, _ = _scan(x, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, lengths, keep)
    return y.to(output_dtype), state


@torch.library.custom_op("hf_seqrec::numba_scan", mutates_args=(), device_types="cpu")
def _scan(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: Tensor | None,
    lengths: Tensor | None,
    keep_checkpoints: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, final states, and the states from which the backward starts again (empty if not kept)."""
    x, delta, B, C = (readable(tensor) for tensor in (x, delta, B, C))
    A = A.contiguous()
    z = None if z is None else readable(z)
    D, delta_bias, initial_state, lengths = (
        None if tensor is None else tensor.contiguous() for tensor in (D, delta_bias, initial_state, lengths)
    )
    y, final, checkpoints = _scan_outputs(x, A, keep_checkpoints)
    (b, length, d), n = x.shape, A.shape[1]
    arguments = (
        *(operand(tensor) for tensor in (x, delta, z, B, C, y)),
        *(address(tensor) for tensor in (A, D, delta_bias, initial_state, final)),
        address(checkpoints) if keep_checkpoints else 0,
        address(lengths),
        delta_softplus,
        (length, d, n),
    )
    shares = Shares(b, d, b * length * d * n)
    shares.run(kernels.scan_forward_scratch(d, n), lambda _, share: kernels.scan_forward(*arguments, share))
    return y, final, checkpoints


def _scan_outputs(x: Tensor, A: Tensor, keep_checkpoints: bool) -> tuple[Tensor, Tensor, Tensor]:
    (b, length, d), n = x.shape, A.shape[1]
    chunks, blocks = -(-length // kernels.CHUNK), -(-d // kernels.WIDTH)
    return (
        x.new_empty(b, length, d),
        x.new_empty(b, d, n),
        x.new_empty((b, chunks, blocks, kernels.padded_states(n), kernels.WIDTH) if keep_checkpoints else (0,)),
    )


@_scan.register_fake
def _(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: Tensor | None,
    lengths: Tensor | None,
    keep_checkpoints: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    return _scan_outputs(x, A, keep_checkpoints)


@torch.library.custom_op("hf_seqrec::numba_scan_backward", mutates_args=(), device_types="cpu")
def _scan_backward(
    grad_y: Tensor,
    grad_final: Tensor | None,
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    lengths: Tensor | None,
    checkpoints: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, delta, A, B, C, D, z (empty if absent), delta_bias and the initial state."""
    x, delta, B, C, grad_y = (readable(tensor) for tensor in (x, delta, B, C, grad_y))
    A = A.contiguous()
    z = None if z is None else readable(z)
    D, delta_bias, grad_final, lengths = (
        None if tensor is None else tensor.contiguous() for tensor in (D, delta_bias, grad_final, lengths)
    )
    (b, length, d), n = x.shape, A.shape[1]
    shares = Shares(b, d, b * length * d * n)
    grad_x, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias, grad_initial = _gradients(x, A, B, z)
    # What is summed over rows or over channels is summed in part here: a share writes where no other does.
    parts_A, parts_D, parts_bias = (
        x.new_empty(shares.row_parts, *whole.shape) for whole in (grad_A, grad_D, grad_bias)
    )
    parts_B, parts_C = (x.new_empty(shares.block_parts, *whole.shape) for whole in (grad_B, grad_C))
    operands = [operand(tensor) for tensor in (x, delta, z, B, C, grad_y, grad_x, grad_delta)]
    operands.append(operand(None if z is None else grad_z))
    addresses = [address(tensor) for tensor in (A, D, delta_bias, checkpoints, grad_final)]

    def run(part: Part, share: Share) -> None:
        kernels.scan_backward(
            *operands,
            *(operand(parts[part.block]) for parts in (parts_B, parts_C)),
            *addresses,
            *(address(parts[part.row]) for parts in (parts_A, parts_D, parts_bias)),
            *(address(tensor) for tensor in (grad_initial, lengths)),
            delta_softplus,
            (length, d, n),
            share,
        )

    shares.run(kernels.scan_backward_scratch(d, n), run)
    for whole, parts in (
        (grad_A, parts_A),
        (grad_B, parts_B),
        (grad_C, parts_C),
        (grad_D, parts_D),
        (grad_bias, parts_bias),
    ):
        torch.sum(parts, dim=0, out=whole)
    return grad_x, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias, grad_initial


def _gradients(x: Tensor, A: Tensor, B: Tensor, z: Tensor | None) -> tuple[Tensor, ...]:
    (b, length, d), n = x.shape, A.shape[1]
    row = (b, length, d)
    shapes = [row, row, (d, n), (b, length, n), (b, length, n), (d,), (0,) if z is None else row, (d,), (b, d, n)]
    return tuple(x.new_empty(shape) for shape in shapes)


@_scan_backward.register_fake
def _(
    grad_y: Tensor,
    grad_final: Tensor | None,
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    lengths: Tensor | None,
    checkpoints: Tensor,
) -> tuple[Tensor, ...]:
    return _gradients(x, A, B, z)


def _save_for_backward(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, delta, A, B, C, D, z, delta_bias, delta_softplus, _, lengths, _ = inputs
    ctx.save_for_backward(x, delta, A, B, C, D, z, delta_bias, lengths, output[2])
    ctx.delta_softplus = delta_softplus
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, grad_y: Tensor | None, grad_final: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    x, delta, A, B, C, D, z, delta_bias, lengths, checkpoints = ctx.saved_tensors
    if grad_y is None:
        grad_y = torch.zeros_like(x)
    grad_x, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias, grad_initial = _scan_backward(
        grad_y, grad_final, x, delta, A, B, C, D, z, delta_bias, ctx.delta_softplus, lengths, checkpoints
    )
    wanted = zip(
        (grad_x, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias, None, grad_initial, None, None),
        ctx.needs_input_grad,
        strict=True,
    )
    return tuple(gradient if is_wanted else None for gradient, is_wanted in wanted)


_scan.register_autograd(_backward, setup_context=_save_for_backward)
