"""The causal convolution with SiLU on a CPU, compiled by numba; a torch operator as the scan is."""

from typing import Any

import torch
from torch import Tensor

from . import numba_kernels as kernels
from .numba_shares import Part, Share, Shares, address, operand, readable


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    initial_state: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    """
    Output of `causal_conv1d_reference` of `models/op_causal_conv.py` on a CPU, in float32.

    Raises:
        TypeError: if a tensor is float64, which `causal_conv1d_reference` computes.
    """
    tensors = (x, weight, bias, initial_state)
    if any(tensor is not None and tensor.dtype == torch.float64 for tensor in tensors):
        raise TypeError("The numba convolution computes in float32, got float64. Set `HF_SEQREC_SCAN=chunked`.")
    lengths = None if lengths is None else lengths.long()
    # Half precision, as under autocast, would be read as if it were float32.
    y = _conv(
        x.float(),
        weight.float(),
        None if bias is None else bias.float(),
        activation == "silu",
        None if initial_state is None else initial_state.float(),
        lengths,
    )
    return y.to(x.dtype)


@torch.library.custom_op("hf_seqrec::numba_conv", mutates_args=(), device_types="cpu")
def _conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, initial_state: Tensor | None, lengths: Tensor | None
) -> Tensor:
    x, weight = readable(x), weight.contiguous()
    bias, initial_state, lengths = (
        None if tensor is None else tensor.contiguous() for tensor in (bias, initial_state, lengths)
    )
    y = x.new_empty(x.shape)
    (b, length, d), width = x.shape, weight.shape[1]
    arguments = (
        *(operand(tensor) for tensor in (x, y)),
        *(address(tensor) for tensor in (weight, bias, initial_state, lengths)),
        silu,
        (length, d, width),
    )
    shares = Shares(b, d, b * length * d * width)
    shares.run(kernels.conv_forward_scratch(width), lambda _, share: kernels.conv_forward(*arguments, share))
    return y


@_conv.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor | None, silu: bool, initial_state: Tensor | None, lengths: Tensor | None
) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("hf_seqrec::numba_conv_backward", mutates_args=(), device_types="cpu")
def _conv_backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    silu: bool,
    initial_state: Tensor | None,
    lengths: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias and the initial state."""
    x, grad_y, weight = readable(x), readable(grad_y), weight.contiguous()
    bias, initial_state, lengths = (
        None if tensor is None else tensor.contiguous() for tensor in (bias, initial_state, lengths)
    )
    (b, length, d), width = x.shape, weight.shape[1]
    shares = Shares(b, d, b * length * d * width)
    grad_x, grad_weight, grad_bias, grad_initial = _gradients(x, weight)
    # What is summed over rows is summed in part here: a share writes where no other does.
    parts_weight, parts_bias = (x.new_empty(shares.row_parts, *whole.shape) for whole in (grad_weight, grad_bias))
    operands = [operand(tensor) for tensor in (x, grad_y, grad_x)]
    addresses = [address(tensor) for tensor in (weight, bias, initial_state)]

    def run(part: Part, share: Share) -> None:
        kernels.conv_backward(
            *operands,
            *addresses,
            *(address(parts[part.row]) for parts in (parts_weight, parts_bias)),
            *(address(tensor) for tensor in (grad_initial, lengths)),
            silu,
            (length, d, width),
            share,
        )

    shares.run(kernels.conv_backward_scratch(width), run)
    for whole, parts in ((grad_weight, parts_weight), (grad_bias, parts_bias)):
        torch.sum(parts, dim=0, out=whole)
    return grad_x, grad_weight, grad_bias, grad_initial


def _gradients(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (b, length, d), width = x.shape, weight.shape[1]
    return (
        x.new_empty(b, length, d),
        x.new_empty(d, width),
        x.new_empty(d),
        x.new_empty(b, d, width - 1),
    )


@_conv_backward.register_fake
def _(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    silu: bool,
    initial_state: Tensor | None,
    lengths: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _gradients(x, weight)


def _save_for_backward(ctx: Any, inputs: tuple, output: Tensor) -> None:
    x, weight, bias, silu, initial_state, lengths = inputs
    ctx.save_for_backward(x, weight, bias, initial_state, lengths)
    ctx.silu = silu


def _backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias, initial_state, lengths = ctx.saved_tensors
    grad_x, grad_weight, grad_bias, grad_initial = _conv_backward(
        grad_y, x, weight, bias, ctx.silu, initial_state, lengths
    )
    wanted = zip((grad_x, grad_weight, grad_bias, None, grad_initial, None), ctx.needs_input_grad, strict=True)
    return tuple(gradient if is_wanted else None for gradient, is_wanted in wanted)


_conv.register_autograd(_backward, setup_context=_save_for_backward)
