"""
The selective scan on a GPU in Triton: nothing to compile when the package is installed.

A forward program owns 32 channels of one row and walks through its positions with the states in registers, one channel
a thread; it leaves the state at the start of every `CHUNK` positions behind. A backward program takes those chunks
last to first, a few states at a time: it computes the states of the chunk again, runs the gradient back through them,
and sums the gradients of B and C over its channels before they reach memory. No atomics, so the same inputs give the
same bits. Where a batch has too few rows to fill the device, rows are cut into segments that are scanned side by side:
a first pass finds where each segment starts, for the price of computing the exponentials twice.

Compared with `selective_scan_reference` in tests/ops/test_triton_scan.py.
"""

import functools
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from .triton_kernels import combine_kernel, scan_backward_kernel, scan_kernel, segment_gradient_kernel
from .triton_launch import check_dtypes, contiguous_rows, on, processors, strides

# Positions between two kept states. More make the backward run out of registers, fewer cost memory.
CHUNK = 8
# States and channels in the tile of one warp in the backward: four channels a thread, one 16-byte load.
_BACKWARD_BLOCK_N = 4
_BACKWARD_BLOCK_D = 32
# Registers a thread may use: nearly four forward programs share a quarter of a multiprocessor, two backward ones.
_FORWARD_REGISTERS = 136
_BACKWARD_REGISTERS = 255
_LOG2_E = 1.4426950408889634


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
    Selective scan of every row on a GPU, and the state it ends in; differentiable once, in every argument.

    Arguments and results as in `hf_seqrec.models.op_selective_scan.selective_scan`. `x`, `delta`, `z`, `B` and `C` are
    read where they lie if their last axis is contiguous: chunks of a wider projection are not copied. States and sums
    are float32 whatever the dtype of the inputs.

    Raises:
        TypeError: if an input is neither float32, bfloat16 nor float16.
        ValueError: if one row spans 2**31 elements or more.
    """
    inputs = {"x": x, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias}
    inputs["initial_state"] = initial_state
    check_dtypes(**inputs)
    A = A.float()
    if x.numel() == 0:
        return _scan_of_nothing(x, A, initial_state)
    x, delta, B, C = (contiguous_rows(tensor) for tensor in (x, delta, B, C))
    z = None if z is None else contiguous_rows(z)
    if max(x.shape[1] * tensor.stride(1) for tensor in (x, delta, B, C, *([] if z is None else [z]))) >= 2**31:
        raise ValueError(f"A row of `x` must span less than 2**31 elements, got shape {tuple(x.shape)}.")
    D, delta_bias, initial_state = (
        None if tensor is None else tensor.float().contiguous() for tensor in (D, delta_bias, initial_state)
    )
    keep = torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in inputs.values())
    y, final_state, _, _ = _scan(x, delta, A, B, C, D, z, delta_bias, initial_state, lengths, delta_softplus, keep)
    return y, final_state


def _scan_of_nothing(x: Tensor, A: Tensor, initial_state: Tensor | None) -> tuple[Tensor, Tensor]:
    if initial_state is None:
        return x.clone(), x.new_zeros(x.shape[0], *A.shape, dtype=torch.float32)
    return x.clone(), initial_state.float().clone()


@torch.library.custom_op("hf_seqrec::triton_scan", mutates_args=())
def _scan(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
    lengths: Tensor | None,
    delta_softplus: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`y`, the final state and, if `keep`, what the backward needs: `y` before the gate, and states, else empty."""
    (b, length, d), n = x.shape, A.shape[1]
    y, final_state, y_ungated, checkpoints = _outputs(x, A, z, keep)
    if lengths is not None:
        y.zero_()
    shapes = _Shapes.of(x, A, blocks_d=triton.cdiv(d, _forward_block_d(n)))
    common = {
        "x": x,
        "delta": delta,
        "A2": _transposed_and_padded(A * _LOG2_E, shapes.pad_n),
        "B": B,
        "D": D,
        "delta_bias": delta_bias,
        "lengths": lengths,
        "length": length,
        **strides(x=x, delta=delta),
        **_strides_in_units(B=B, C=C),
        "segment": shapes.segment,
        "n_segments": shapes.n_segments,
        "WIDTH": d,
        "N": n,
        "PAD_N": shapes.pad_n,
        "BLOCK_D": _forward_block_d(n),
        "CHUNK": CHUNK,
        "SOFTPLUS": delta_softplus,
        **_options(_FORWARD_REGISTERS if n <= 32 else None),
    }
    first = None if initial_state is None else _transposed_and_padded(initial_state, shapes.pad_n)
    last = x.new_empty(b, shapes.pad_n, d, dtype=torch.float32)
    with on(x):
        if shapes.n_segments > 1:
            states, elapsed = _segment_buffers(x, shapes)
            nothing = {"C": None, "z": None, "initial": None, "y": None, "y_ungated": None, "checkpoints": None}
            scan_kernel[shapes.grid](**(common | nothing), z_b=0, z_l=0, final=states, total_step=elapsed)
            _combine(common["A2"], states, elapsed, first, last, shapes, reverse=False)
            first = states
        scan_kernel[shapes.grid](
            **common,
            C=C,
            z=z,
            **strides(z=x if z is None else z),
            initial=first,
            y=y,
            y_ungated=y_ungated if keep and z is not None else None,
            checkpoints=checkpoints if keep else None,
            final=last if shapes.n_segments == 1 else None,
            total_step=None,
        )
    final_state.copy_(last[:, :n].transpose(1, 2))
    return y, final_state, y_ungated, checkpoints


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
    initial_state: Tensor | None,
    lengths: Tensor | None,
    delta_softplus: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _outputs(x, A, z, keep)


def _outputs(x: Tensor, A: Tensor, z: Tensor | None, keep: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (b, length, d), n = x.shape, A.shape[1]
    y = x.new_empty(b, length, d)
    final_state = x.new_empty(b, d, n, dtype=torch.float32)
    y_ungated = x.new_empty((b, length, d) if keep and z is not None else (0,))
    n_kept = -(-length // CHUNK)
    kept = (b, n_kept, _padded(n), d) if keep else (0,)
    return y, final_state, y_ungated, x.new_empty(kept, dtype=torch.float32)


@torch.library.custom_op("hf_seqrec::triton_scan_backward", mutates_args=())
def _scan_backward(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    lengths: Tensor | None,
    delta_softplus: bool,
    y_ungated: Tensor,
    checkpoints: Tensor,
    grad_y: Tensor,
    grad_final: Tensor | None,
) -> list[Tensor]:
    """Gradients of `x, delta, A, B, C, D, z, delta_bias, initial_state`; empty where there is no such argument."""
    (b, length, d), n = x.shape, A.shape[1]
    shapes = _Shapes.of(x, A, blocks_d=triton.cdiv(d, _BACKWARD_BLOCK_D))
    grad_y = contiguous_rows(grad_y)
    A2 = _transposed_and_padded(A * _LOG2_E, shapes.pad_n)
    parts = b * shapes.n_segments
    new = functools.partial(torch.zeros if lengths is not None else torch.empty, device=x.device)
    grad_x, grad_delta = (new(x.shape, dtype=tensor.dtype) for tensor in (x, delta))
    grad_z = new(0) if z is None else new(x.shape, dtype=z.dtype)
    # One slice per block of channels, summed below.
    grad_B, grad_C = (new((shapes.blocks_d, b, length, n), dtype=torch.float32) for _ in range(2))
    grad_A = torch.zeros(parts, shapes.pad_n, d, device=x.device)
    grad_D, grad_bias = (torch.empty(parts, d, device=x.device) for _ in range(2))
    scratch = torch.empty(parts * shapes.blocks_d, 6, CHUNK, _BACKWARD_BLOCK_D, device=x.device)
    last = None if grad_final is None else _transposed_and_padded(grad_final.float(), shapes.pad_n)
    common = {
        "delta": delta,
        "A2": A2,
        "C": C,
        "z": z,
        "delta_bias": delta_bias,
        "lengths": lengths,
        "grad_y": grad_y,
        "length": length,
        **strides(delta=delta, z=x if z is None else z, grad_y=grad_y),
        "segment": shapes.segment,
        "n_segments": shapes.n_segments,
        "WIDTH": d,
        "N": n,
        "PAD_N": shapes.pad_n,
        "SOFTPLUS": delta_softplus,
    }
    with on(x):
        if shapes.n_segments > 1:
            carry, elapsed = _segment_buffers(x, shapes)
            block_d = _forward_block_d(n)
            C_strides = {name: value for name, value in _strides_in_units(B=B, C=C).items() if name[0] != "B"}
            segment_gradient_kernel[(parts * triton.cdiv(d, block_d),)](
                **common,
                **C_strides,
                carry=carry,
                total_step=elapsed,
                BLOCK_D=block_d,
                **_options(None),
            )
            _combine(A2, carry, elapsed, last, None, shapes, reverse=True)
        else:
            carry = torch.zeros(b, shapes.pad_n, d, device=x.device) if last is None else last
        scan_backward_kernel[shapes.grid](
            **common,
            x=x,
            B=B,
            D=D,
            checkpoints=checkpoints,
            y_ungated=None if z is None else y_ungated,
            carry=carry,
            scratch=scratch,
            grad_x=grad_x,
            grad_delta=grad_delta,
            grad_z=None if z is None else grad_z,
            grad_A=grad_A,
            grad_B=grad_B,
            grad_C=grad_C,
            grad_D=grad_D,
            grad_bias=grad_bias,
            batch=b,
            **strides(x=x),
            **_strides_in_units(B=B, C=C),
            BLOCK_N=_BACKWARD_BLOCK_N,
            BLOCK_D=_BACKWARD_BLOCK_D,
            CHUNK=CHUNK,
            **_options(_BACKWARD_REGISTERS),
        )
    # The carry has arrived at the first position of each segment.
    grad_initial = carry.view(b, shapes.n_segments, shapes.pad_n, d)[:, 0, :n].transpose(1, 2).contiguous()
    return [
        grad_x,
        grad_delta,
        grad_A.sum(0)[:n].t().contiguous(),
        _sum_over_blocks(grad_B, B.dtype),
        _sum_over_blocks(grad_C, C.dtype),
        new(0) if D is None else grad_D.sum(0),
        grad_z,
        new(0) if delta_bias is None else grad_bias.sum(0),
        grad_initial,
    ]


@_scan_backward.register_fake
def _(
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    lengths: Tensor | None,
    delta_softplus: bool,
    y_ungated: Tensor,
    checkpoints: Tensor,
    grad_y: Tensor,
    grad_final: Tensor | None,
) -> list[Tensor]:
    shapes = [
        (x.shape, x),
        (x.shape, delta),
        (A.shape, A),
        (B.shape, B),
        (C.shape, C),
        ((0,) if D is None else D.shape, A),
        ((0,) if z is None else x.shape, A if z is None else z),
        ((0,) if delta_bias is None else delta_bias.shape, A),
        ((x.shape[0], *A.shape), A),
    ]
    return [x.new_empty(shape, dtype=like.dtype) for shape, like in shapes]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.delta_softplus, ctx.keep = inputs
    _, _, y_ungated, checkpoints = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(y_ungated, checkpoints)
    ctx.save_for_backward(*tensors, y_ungated, checkpoints)


def _backward(ctx: Any, grad_y: Tensor | None, grad_final: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    *tensors, initial_state, lengths, y_ungated, checkpoints = ctx.saved_tensors
    if grad_y is None:
        if grad_final is None:
            return (None,) * 12
        grad_y = torch.zeros_like(tensors[0])
    grads = _scan_backward(*tensors, lengths, ctx.delta_softplus, y_ungated, checkpoints, grad_y, grad_final)
    present = [None if tensor is None else grad for tensor, grad in zip((*tensors, initial_state), grads, strict=True)]
    return (*present, None, None, None)


_scan.register_autograd(_backward, setup_context=_setup_context)


class _Shapes(NamedTuple):
    """How the work is cut: into `b * n_segments * blocks_d` programs, each over `segment` positions of a row."""

    pad_n: int
    blocks_d: int
    segment: int
    n_segments: int
    programs: int

    @classmethod
    def of(cls, x: Tensor, A: Tensor, blocks_d: int) -> "_Shapes":
        b, length, _ = x.shape
        programs, available = b * blocks_d, processors(x.device)
        n_segments = 1
        if programs < 4 * available:
            # Enough for several warps in each quarter of a multiprocessor, none shorter than eight chunks.
            n_segments = max(1, min(triton.cdiv(32 * available, programs), length // (8 * CHUNK)))
        segment = triton.cdiv(triton.cdiv(length, n_segments), CHUNK) * CHUNK
        n_segments = triton.cdiv(length, segment)
        return cls(_padded(A.shape[1]), blocks_d, segment, n_segments, programs * n_segments)

    @property
    def grid(self) -> tuple[int]:
        return (self.programs,)


def _options(registers: int | None) -> dict[str, Any]:
    options = {"num_warps": 1, "enable_fp_fusion": True}
    return options if registers is None else options | {"maxnreg": registers}


def _padded(n: int) -> int:
    return max(_BACKWARD_BLOCK_N, triton.next_power_of_2(n))


def _forward_block_d(n: int) -> int:
    """A warp's worth of channels, fewer where a thread could not hold the states of one."""
    return max(4, min(32, 1024 // _padded(n)))


def _transposed_and_padded(tensor: Tensor, pad_n: int) -> Tensor:
    """`(..., d, n)` to a contiguous `(..., pad_n, d)`: neighbouring channels are read together."""
    *outer, d, n = tensor.shape
    padded = tensor.new_zeros(*outer, pad_n, d)
    padded[..., :n, :] = tensor.transpose(-1, -2)
    return padded


def _strides_in_units(**tensors: Tensor) -> dict[str, int]:
    """Like `strides`, divided by the `UNIT` that tells the compiler when four elements can be loaded as one."""
    plain = strides(**tensors)
    unit = 4 if all(stride % 4 == 0 for stride in plain.values()) else 1
    return {name: stride // unit for name, stride in plain.items()} | {"UNIT": unit}


def _segment_buffers(x: Tensor, shapes: _Shapes) -> tuple[Tensor, Tensor]:
    parts = x.shape[0] * shapes.n_segments
    return torch.empty(parts, shapes.pad_n, x.shape[2], device=x.device), torch.empty(
        parts, x.shape[2], device=x.device
    )


def _combine(
    A2: Tensor,
    states: Tensor,
    elapsed: Tensor,
    boundary: Tensor | None,
    final: Tensor | None,
    shapes: _Shapes,
    reverse: bool,
) -> None:
    """Turn what each segment ends in, started from zero, into what it starts from."""
    d = A2.shape[1]
    block_d = 32
    rows = states.shape[0] // shapes.n_segments
    combine_kernel[(rows * triton.cdiv(d, block_d),)](
        A2=A2,
        states=states,
        total_step=elapsed,
        boundary=boundary,
        final=final,
        n_segments=shapes.n_segments,
        WIDTH=d,
        PAD_N=shapes.pad_n,
        BLOCK_D=block_d,
        REVERSE=reverse,
        **(_options(None) | {"num_warps": 4}),
    )


def _sum_over_blocks(grad: Tensor, dtype: torch.dtype) -> Tensor:
    return grad[0].to(dtype) if len(grad) == 1 else grad.sum(0).to(dtype)
