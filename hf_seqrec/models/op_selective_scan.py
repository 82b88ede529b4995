"""
The selective scan, Mamba's recurrence: its definition, a torch form that trains in little memory, and the choice.

Everything here is plain torch and travels with a checkpoint. Where the package is installed, `selective_scan` hands
the work to a faster backend of `hf_seqrec.ops`; the numbers are the same.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .op_backends import faster_op, wanted_backend

# Positions whose `(b, d, n)` states the chunked scan holds at once; it keeps one state per chunk for the backward.
_CHUNK = 16


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
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    r"""
    Selective scan of every row, and the state it ends in, by the fastest way that fits the tensors.

    `selective_scan_reference` is the definition. Chosen per call: `selective_state_update` for a single position,
    a backend of `hf_seqrec.ops` for longer rows, `selective_scan_chunked` where there is none.

    Args:
        x (`torch.Tensor` of shape `(b, l, d)`): Input.
        delta (`torch.Tensor` of shape `(b, l, d)`): Step sizes, before `delta_bias` and softplus.
        A (`torch.Tensor` of shape `(d, n)`): Continuous-time transition of each channel and state (diagonal).
        B (`torch.Tensor` of shape `(b, l, n)`): How a position writes into the state.
        C (`torch.Tensor` of shape `(b, l, n)`): How a position reads the state.
        D (`torch.Tensor` of shape `(d,)`, *optional*): Skip connection, `y + D * x`.
        z (`torch.Tensor` of shape `(b, l, d)`, *optional*): Gate, `y * SiLU(z)`.
        delta_bias (`torch.Tensor` of shape `(d,)`, *optional*): Added to `delta`.
        delta_softplus (`bool`): Whether to pass `delta` through softplus.
        initial_state (`torch.Tensor` of shape `(b, d, n)`, *optional*): State to start from; zero if absent.
        lengths (`torch.LongTensor` of shape `(b,)`, *optional*): Row `i` stops after `lengths[i]` positions.
        backend (`str`, *optional*): Insist on `"reference"`, `"chunked"`, or a backend such as `"numba"`. The
            environment variable `HF_SEQREC_SCAN`, where it is set, has the last word.

    Returns:
        `tuple(torch.Tensor, torch.Tensor)`: `y` of shape `(b, l, d)` in the dtype of `x`, zero beyond `lengths`; and
        the state at each row's end, `(b, d, n)`, in float32 (float64 if an input is).

    Raises:
        ValueError: if shapes do not fit, or the backend that is insisted on cannot be used here.
    """
    _check_shapes(x, delta, A, B, C, D, z, delta_bias, initial_state, lengths)
    scan = _choose_scan(x, delta, A, lengths, wanted_backend(backend))
    return scan(x, delta, A, B, C, D, z, delta_bias, delta_softplus, initial_state, lengths)


def selective_scan_reference(
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
    Definition of the selective scan, one position after the other.

    Gu and Dao 2023, https://arxiv.org/abs/2312.00752: Algorithm 2 with the recurrence (2a, 2b). `A` is
    discretised by zero-order hold as in (4), `B` by the simpler `delta * B`: so do the authors' code and every
    published checkpoint, though (4) writes zero-order hold for both.

        h_t = exp(delta_t A) h_{t-1} + delta_t B_t x_t
        y_t = C_t h_t

    Arguments and results as in `selective_scan`.
    """
    output_dtype = x.dtype
    dtype = _state_dtype(x, delta, A, B, C, D, z, delta_bias, initial_state)
    x, delta, A, B, C = (tensor.to(dtype) for tensor in (x, delta, A, B, C))
    delta = _step_sizes(delta, delta_bias, delta_softplus)
    state = _first_state(x, A, initial_state)
    outputs = []
    # unbind: the gradient of an index `x[:, t]` is a tensor as long as x, so a loop over it is quadratic in length.
    for t, (x_t, delta_t, B_t, C_t) in enumerate(zip(*(tensor.unbind(1) for tensor in (x, delta, B, C)), strict=True)):
        decay = torch.exp(delta_t[:, :, None] * A)  # [b, d, n]
        following = decay * state + (delta_t * x_t)[:, :, None] * B_t[:, None, :]
        state = following if lengths is None else torch.where((t < lengths)[:, None, None], following, state)
        outputs.append((state * C_t[:, None, :]).sum(dim=-1))
    y = torch.stack(outputs, dim=1) if outputs else torch.zeros_like(x)
    return _finish(y, x, D, z, lengths).to(output_dtype), state


def selective_scan_chunked(
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
    Selective scan in torch on any device, a chunk of positions at a time.

    Only the state at the start of each chunk is kept; the backward computes the others again (Gu and Dao 2023, section
    3.3.2), so memory grows with `b * l * d` and not with `b * l * d * n`. Differentiable once.

    Arguments and results as in `selective_scan`.
    """
    output_dtype = x.dtype
    dtype = _state_dtype(x, delta, A, B, C, D, z, delta_bias, initial_state)
    x, delta, A, B, C = (tensor.to(dtype) for tensor in (x, delta, A, B, C))
    delta = _step_sizes(delta, delta_bias, delta_softplus)
    if lengths is not None:
        # A step of size zero leaves the state as it is: exp(0) = 1 and nothing is written.
        delta = delta.masked_fill(_beyond(lengths, x), 0)
    y, state = _ChunkedScan.apply(delta * x, delta, A, B, C, _first_state(x, A, initial_state))
    return _finish(y, x, D, z, lengths).to(output_dtype), state


def selective_state_update(
    state: Tensor,
    x: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""
    One step of `selective_scan_reference`, for feeding events as they arrive.

    Args:
        state (`torch.Tensor` of shape `(b, d, n)`): State before the step; not changed.
        x, delta, z (`torch.Tensor` of shape `(b, d)`): Input, step size and gate of one position.
        B, C (`torch.Tensor` of shape `(b, n)`): How the position writes and reads.
        A, D, delta_bias, delta_softplus: As in `selective_scan`.

    Returns:
        `tuple(torch.Tensor, torch.Tensor)`: `y` of shape `(b, d)` and the state after the step, `(b, d, n)`.
    """
    dtype = _state_dtype(x, delta, A, B, C, D, z, delta_bias, state)
    delta = _step_sizes(delta.to(dtype), delta_bias, delta_softplus)
    decay = torch.exp(delta.unsqueeze(-1) * A)  # [b, d, n]
    state = torch.addcmul(decay * state, (delta * x).unsqueeze(-1), B.to(dtype).unsqueeze(-2))
    y = torch.linalg.vecdot(state, C.to(dtype).unsqueeze(-2))
    return _finish(y, x, D, z, None).to(x.dtype), state


class _ChunkedScan(torch.autograd.Function):
    """
    `h_t = exp(delta_t A) h_{t-1} + u_t B_t`, `y_t = C_t h_t`, with `u = delta * x`; all of one dtype.

    Products with a vector have it on the left: as a column on the right, a CPU takes eight times as long. Every chunk
    uses the same memory: to ask the system for fresh pages takes as long as to fill them.
    """

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor
    ) -> tuple[Tensor, Tensor]:
        y, state = torch.empty_like(u), initial_state
        first_states = []
        buffers = _chunk_buffers(u, A, 2)
        with _no_autocast(u.device.type):
            for chunk in _chunks(u.shape[1]):
                first_states.append(state)
                _, states = _chunk_states(buffers, state, u[:, chunk], delta[:, chunk], A, B[:, chunk])
                y[:, chunk] = (C[:, chunk, None] @ states.mT).squeeze(2)
                state = states[:, -1].clone()
        ctx.save_for_backward(u, delta, A, B, C, *first_states)
        # An input returned as it is would lose its own gradient (no positions at all).
        return y, state.clone() if state is initial_state else state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_state: Tensor) -> tuple[Tensor, ...]:
        u, delta, A, B, C, *first_states = ctx.saved_tensors
        grads_u, grads_delta, grads_A, grads_B, grads_C = (torch.zeros_like(tensor) for tensor in (u, delta, A, B, C))
        buffers = _chunk_buffers(u, A, 3)
        smallest_normal = torch.finfo(u.dtype).tiny
        with _no_autocast(u.device.type):
            for chunk, first_state in zip(reversed(_chunks(u.shape[1])), reversed(first_states), strict=True):
                u_c, delta_c, B_c, C_c, grad_y_c = (tensor[:, chunk] for tensor in (u, delta, B, C, grad_y))
                decays, states = _chunk_states(buffers, first_state, u_c, delta_c, A, B_c)  # [b, chunk, d, n]
                grads_C[:, chunk] = (grad_y_c[:, :, None] @ states).squeeze(2)

                # grads[t] = d loss / d h_t = C_t grad_y_t + exp(delta_{t+1} A) grads[t+1]
                grads = torch.mul(grad_y_c[..., None], C_c[:, :, None], out=buffers[2][:, : u_c.shape[1]])
                for grad, decay in zip(reversed(grads.unbind(1)), reversed(decays.unbind(1)), strict=True):
                    grad += grad_state
                    grad_state = grad * decay
                # Denormal numbers, which a loss at the last position decays into, cost a CPU twenty times the time.
                grad_state = F.hardshrink(grad_state, smallest_normal)

                grads_B[:, chunk] = (u_c[:, :, None] @ grads).squeeze(2)
                grads_u[:, chunk] = (B_c[:, :, None] @ grads.mT).squeeze(2)
                # d loss / d (delta_t A) = grads[t] * exp(delta_t A) * h_{t-1}
                decays *= grads
                decays[:, 0] *= first_state
                decays[:, 1:] *= states[:, :-1]
                grads_delta[:, chunk] = torch.mul(decays, A, out=grads).sum(dim=-1)
                grads_A += decays.mul_(delta_c[..., None]).sum(dim=(0, 1))
        return grads_u, grads_delta, grads_A, grads_B, grads_C, grad_state


def _chunks(length: int) -> list[slice]:
    return [slice(start, min(start + _CHUNK, length)) for start in range(0, length, _CHUNK)]


def _chunk_buffers(u: Tensor, A: Tensor, count: int) -> list[Tensor]:
    return [u.new_empty(u.shape[0], min(_CHUNK, u.shape[1]), *A.shape) for _ in range(count)]


def _chunk_states(
    buffers: list[Tensor], state: Tensor, u: Tensor, delta: Tensor, A: Tensor, B: Tensor
) -> tuple[Tensor, Tensor]:
    """Decays and states, `(b, chunk, d, n)` each, of a few positions from the state before them."""
    decays, states = (buffer[:, : u.shape[1]] for buffer in buffers[:2])
    torch.mul(delta[..., None], A, out=decays).exp_()
    torch.mul(u[..., None], B[:, :, None], out=states)
    for following, decay in zip(states.unbind(1), decays.unbind(1), strict=True):
        state = following.addcmul_(decay, state)
    return decays, states


def _no_autocast(device_type: str) -> AbstractContextManager:
    """Keep the matrix products in the dtype of the states."""
    if torch.amp.is_autocast_available(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def _step_sizes(delta: Tensor, delta_bias: Tensor | None, delta_softplus: bool) -> Tensor:
    if delta_bias is not None:
        delta = delta + delta_bias.to(delta.dtype)
    return F.softplus(delta) if delta_softplus else delta


def _first_state(x: Tensor, A: Tensor, initial_state: Tensor | None) -> Tensor:
    if initial_state is None:
        return x.new_zeros(x.shape[0], *A.shape)
    return initial_state.to(x.dtype)


def _finish(y: Tensor, x: Tensor, D: Tensor | None, z: Tensor | None, lengths: Tensor | None) -> Tensor:
    """Skip connection, gate, and zeros beyond each row's end."""
    if D is not None:
        y = torch.addcmul(y, D.to(y.dtype), x.to(y.dtype))
    if z is not None:
        y = y * F.silu(z.to(y.dtype))
    return y if lengths is None else y.masked_fill(_beyond(lengths, x), 0)


def _beyond(lengths: Tensor, x: Tensor) -> Tensor:
    """Mask `(b, l, 1)` of the positions after each row's end."""
    return (torch.arange(x.shape[1], device=x.device) >= lengths[:, None])[:, :, None]


def _state_dtype(*tensors: Tensor | None) -> torch.dtype:
    """Half precision forgets a small step (1 + 0.001 = 1), so states are float32 at least."""
    dtypes = {tensor.dtype for tensor in tensors if tensor is not None}
    return torch.float64 if torch.float64 in dtypes else torch.float32


def _choose_scan(
    x: Tensor, delta: Tensor, A: Tensor, lengths: Tensor | None, wanted: str | None
) -> Callable[..., tuple[Tensor, Tensor]]:
    if wanted in _TORCH_SCANS:
        return _TORCH_SCANS[wanted]
    if wanted is None and x.shape[1] == 1 and lengths is None:
        return _single_step
    if wanted is None and _state_dtype(x, delta, A) == torch.float64:
        return selective_scan_chunked
    return faster_op("selective_scan", x.device.type, wanted) or selective_scan_chunked


def _single_step(
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
    lengths: None,
) -> tuple[Tensor, Tensor]:
    """`selective_scan_reference` at length 1."""
    state = x.new_zeros(x.shape[0], *A.shape, dtype=A.dtype) if initial_state is None else initial_state
    x, delta, B, C = (tensor.squeeze(1) for tensor in (x, delta, B, C))
    z = None if z is None else z.squeeze(1)
    y, state = selective_state_update(state, x, delta, A, B, C, D, z, delta_bias, delta_softplus)
    return y.unsqueeze(1), state


_TORCH_SCANS = {"reference": selective_scan_reference, "chunked": selective_scan_chunked}


def _check_shapes(
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
) -> None:
    if x.dim() != 3 or A.dim() != 2:
        raise ValueError(f"`x` must be (b, l, d) and `A` (d, n), got {tuple(x.shape)} and {tuple(A.shape)}.")
    (b, length, d), n = x.shape, A.shape[1]
    for name, tensor, shape in (
        ("delta", delta, (b, length, d)),
        ("A", A, (d, n)),
        ("B", B, (b, length, n)),
        ("C", C, (b, length, n)),
        ("D", D, (d,)),
        ("z", z, (b, length, d)),
        ("delta_bias", delta_bias, (d,)),
        ("initial_state", initial_state, (b, d, n)),
        ("lengths", lengths, (b,)),
    ):
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"`{name}` must have shape {shape}, got {tuple(tensor.shape)}.")
