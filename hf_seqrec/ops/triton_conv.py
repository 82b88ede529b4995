"""
The causal convolution with its activation on a GPU in Triton, forward and gradient, reading `(b, l, d)` as it lies.

Each program owns a tile of positions and channels and reads it once per tap; the first-level cache makes that one read
from memory. Compared with `causal_conv1d_reference` in tests/ops/test_triton_scan.py.
"""

# The kernel language knows no annotations for its values and no starred tuples.
# mypy: disable-error-code="no-untyped-def, assignment"
# ruff: noqa: RUF005

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .triton_kernels import sigmoid
from .triton_launch import check_dtypes, contiguous_rows, on, processors, strides

_BLOCK_L = 16
_BLOCK_D = 64


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    initial_state: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    r"""
    Depthwise causal convolution over positions on a GPU: `(b, l, d)`.

    Arguments as in `causal_conv1d_reference` of `models/op_causal_conv.py`; differentiable once. `x` is read where
    it lies if its last axis is contiguous. Sums are float32 whatever the dtype of the inputs.

    Raises:
        TypeError: if an input is neither float32, bfloat16 nor float16.
    """
    check_dtypes(x=x, weight=weight, bias=bias, initial_state=initial_state)
    if x.numel() == 0:
        return x.clone()
    return _conv(
        contiguous_rows(x),
        weight.float().contiguous(),
        None if bias is None else bias.float().contiguous(),
        None if initial_state is None else initial_state.contiguous(),
        lengths,
        activation == "silu",
    )


@torch.library.custom_op("hf_seqrec::triton_conv", mutates_args=())
def _conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, lengths: Tensor | None, silu: bool
) -> Tensor:
    b, length, d = x.shape
    y = x.new_empty(b, length, d)
    blocks_l, blocks_d = triton.cdiv(length, _BLOCK_L), triton.cdiv(d, _BLOCK_D)
    with on(x):
        conv_kernel[(b * blocks_l * blocks_d,)](
            x=x,
            weight=weight,
            bias=bias,
            initial=initial_state,
            lengths=lengths,
            y=y,
            length=length,
            **strides(x=x),
            WIDTH=d,
            TAPS=weight.shape[1],
            BLOCK_L=_BLOCK_L,
            BLOCK_D=_BLOCK_D,
            SILU=silu,
        )
    return y


@_conv.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor | None, initial_state: Tensor | None, lengths: Tensor | None, silu: bool
) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("hf_seqrec::triton_conv_backward", mutates_args=())
def _conv_backward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    lengths: Tensor | None,
    silu: bool,
    grad_y: Tensor,
) -> list[Tensor]:
    """Gradients of `x, weight, bias, initial_state`; empty where there is no such argument."""
    (b, length, d), taps = x.shape, weight.shape[1]
    grad_y = contiguous_rows(grad_y)
    grad_x = x.new_empty(b, length, d)
    grad_initial = x.new_empty(0) if initial_state is None else torch.empty_like(initial_state)
    blocks_d = triton.cdiv(d, _BLOCK_D)
    # Tiles a program goes through; the fewer programs, the fewer partial sums for the weights.
    tiles = triton.cdiv(length + taps - 1, _BLOCK_L)
    parts = max(1, min(tiles, triton.cdiv(32 * processors(x.device), b * blocks_d)))
    sums = x.new_empty(b * parts, taps + 1, d, dtype=torch.float32)
    with on(x):
        conv_backward_kernel[(b * parts * blocks_d,)](
            x=x,
            weight=weight,
            bias=bias,
            initial=initial_state,
            lengths=lengths,
            grad_y=grad_y,
            grad_x=grad_x,
            grad_initial=None if initial_state is None else grad_initial,
            sums=sums,
            length=length,
            parts=parts,
            **strides(x=x, grad_y=grad_y),
            WIDTH=d,
            TAPS=taps,
            BLOCK_L=_BLOCK_L,
            BLOCK_D=_BLOCK_D,
            SILU=silu,
        )
    total = sums.sum(0)
    # A second name for the same memory may not leave an operator.
    return [
        grad_x,
        total[:taps].t().contiguous(),
        x.new_empty(0) if bias is None else total[taps].clone(),
        grad_initial,
    ]


@_conv_backward.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    initial_state: Tensor | None,
    lengths: Tensor | None,
    silu: bool,
    grad_y: Tensor,
) -> list[Tensor]:
    return [
        x.new_empty(x.shape),
        torch.empty_like(weight),
        x.new_empty(0) if bias is None else torch.empty_like(bias),
        x.new_empty(0) if initial_state is None else torch.empty_like(initial_state),
    ]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.silu = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias, initial_state, lengths = ctx.saved_tensors
    grads = _conv_backward(x, weight, bias, initial_state, lengths, ctx.silu, grad_y)
    present = [
        None if tensor is None else grad for tensor, grad in zip((x, weight, bias, initial_state), grads, strict=True)
    ]
    return (*present, None, None)


_conv.register_autograd(_backward, setup_context=_setup_context)


@triton.jit
def conv_kernel(
    x,
    weight,
    bias,
    initial,
    lengths,
    y,
    length,
    x_b,
    x_l,
    WIDTH: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SILU: tl.constexpr,
):
    blocks_d = tl.cdiv(WIDTH, BLOCK_D)
    blocks_l = tl.cdiv(length, BLOCK_L)
    program = tl.program_id(0)
    row = (program // blocks_d // blocks_l).to(tl.int64)
    t = (program // blocks_d % blocks_l) * BLOCK_L + tl.arange(0, BLOCK_L)[:, None]
    cols = (program % blocks_d) * BLOCK_D + tl.arange(0, BLOCK_D)[None, :]
    inside = cols < WIDTH
    end = length
    if lengths is not None:
        end = tl.load(lengths + row).to(tl.int32)
    total = tl.zeros([BLOCK_L, BLOCK_D], tl.float32)
    if bias is not None:
        total += tl.load(bias + cols, mask=inside, other=0.0)
    x += row * x_b
    for k in tl.static_range(TAPS):
        s = t + (k - (TAPS - 1))
        value = tl.load(x + s * x_l + cols, mask=inside & (s >= 0) & (s < end), other=0.0).to(tl.float32)
        if initial is not None:
            at = (row * WIDTH + cols) * (TAPS - 1) + s + (TAPS - 1)
            value += tl.load(initial + at, mask=inside & (s < 0), other=0.0).to(tl.float32)
        total += tl.load(weight + cols * TAPS + k, mask=inside, other=0.0) * value
    if SILU:
        total *= sigmoid(total)
    total = tl.where(t < end, total, 0.0)
    tl.store(y + (row * length + t) * WIDTH + cols, total, mask=inside & (t < length))


@triton.jit
def conv_backward_kernel(
    x,
    weight,
    bias,
    initial,
    lengths,
    grad_y,
    grad_x,
    grad_initial,
    sums,
    length,
    parts,
    x_b,
    x_l,
    grad_y_b,
    grad_y_l,
    WIDTH: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK_L: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SILU: tl.constexpr,
):
    blocks_d = tl.cdiv(WIDTH, BLOCK_D)
    program = tl.program_id(0)
    part = program // blocks_d % parts
    row = (program // blocks_d // parts).to(tl.int64)
    cols = (program % blocks_d) * BLOCK_D + tl.arange(0, BLOCK_D)[None, :]
    inside = cols < WIDTH
    end = length
    if lengths is not None:
        end = tl.load(lengths + row).to(tl.int32)
    offset = tl.zeros([1, BLOCK_D], tl.float32)
    if bias is not None:
        offset = tl.load(bias + cols, mask=inside, other=0.0)
    x += row * x_b
    grad_y += row * grad_y_b
    sum_bias = tl.zeros([BLOCK_L, BLOCK_D], tl.float32)
    weights = ()
    sum_weights = ()
    for k in tl.static_range(TAPS):
        weights = weights + (tl.load(weight + cols * TAPS + k, mask=inside, other=0.0),)
        sum_weights = sum_weights + (tl.zeros([BLOCK_L, BLOCK_D], tl.float32),)

    # Positions start before the first one, where the initial state's gradient lies.
    for tile in range(part, tl.cdiv(length + TAPS - 1, BLOCK_L), parts):
        t = tile * BLOCK_L - (TAPS - 1) + tl.arange(0, BLOCK_L)[:, None]
        # Inputs at t - (TAPS - 1) ... t + (TAPS - 1): all that the outputs t ... t + TAPS - 1 have seen.
        values = ()
        for k in tl.static_range(2 * TAPS - 1):
            s = t + (k - (TAPS - 1))
            value = tl.load(x + s * x_l + cols, mask=inside & (s >= 0) & (s < end), other=0.0).to(tl.float32)
            if initial is not None:
                at = (row * WIDTH + cols) * (TAPS - 1) + s + (TAPS - 1)
                early = inside & (s < 0) & (s >= -(TAPS - 1))
                value += tl.load(initial + at, mask=early, other=0.0).to(tl.float32)
            values = values + (value,)
        grad_value = tl.zeros([BLOCK_L, BLOCK_D], tl.float32)
        for j in tl.static_range(TAPS):
            s = t + j
            live = inside & (s >= 0) & (s < end)
            grad = tl.load(grad_y + s * grad_y_l + cols, mask=live, other=0.0).to(tl.float32)
            if SILU:
                total = offset + tl.zeros([BLOCK_L, BLOCK_D], tl.float32)
                for k in tl.static_range(TAPS):
                    total += weights[k] * values[j + k]
                gate = sigmoid(total)
                grad *= gate * (1.0 + total * (1.0 - gate))
            grad_value += weights[TAPS - 1 - j] * grad
            if j == 0:
                sum_bias += grad
                added = ()
                for k in tl.static_range(TAPS):
                    added = added + (sum_weights[k] + grad * values[k],)
                sum_weights = added
        # Beyond a row's end nothing was read, and the gradient is zero.
        tl.store(grad_x + (row * length + t) * WIDTH + cols, grad_value, mask=inside & (t >= 0) & (t < length))
        if grad_initial is not None:
            at = (row * WIDTH + cols) * (TAPS - 1) + t + (TAPS - 1)
            tl.store(grad_initial + at, grad_value, mask=inside & (t < 0))

    sums += (row * parts + part) * ((TAPS + 1) * WIDTH) + cols
    for k in tl.static_range(TAPS):
        tl.store(sums + k * WIDTH, tl.sum(sum_weights[k], 0, keep_dims=True), mask=inside)
    tl.store(sums + TAPS * WIDTH, tl.sum(sum_bias, 0, keep_dims=True), mask=inside)
