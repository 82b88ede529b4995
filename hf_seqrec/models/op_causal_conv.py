"""The short causal convolution in front of the selective scan: its definition, and the choice of a faster way."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .op_backends import faster_op, wanted_backend


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    initial_state: Tensor | None = None,
    lengths: Tensor | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    r"""
    Depthwise causal convolution over positions, and the inputs that the next position will still need.

    `causal_conv1d_reference` is the definition; on a device with a backend in `hf_seqrec.ops` that one is used.

    Args:
        x (`torch.Tensor` of shape `(b, l, d)`): Input.
        weight (`torch.Tensor` of shape `(d, w)`): One filter per channel; `weight[:, -1]` meets the current position.
        bias (`torch.Tensor` of shape `(d,)`, *optional*): Added to every position.
        activation (`str`, *optional*): `"silu"` or nothing.
        initial_state (`torch.Tensor` of shape `(b, d, w - 1)`, *optional*): The inputs before the first one, oldest
            first; zero if absent.
        lengths (`torch.LongTensor` of shape `(b,)`, *optional*): Row `i` stops after `lengths[i]` positions.
        backend (`str`, *optional*): As in `selective_scan`.

    Returns:
        `tuple(torch.Tensor, torch.Tensor)`: `y` of shape `(b, l, d)`, zero beyond `lengths`; and the last `w - 1`
        inputs before each row's end, `(b, d, w - 1)`. Both in the dtype of `x`.

    Raises:
        ValueError: if shapes do not fit, the activation is unknown, or the backend that is insisted on cannot be used.
    """
    _check(x, weight, bias, activation, initial_state, lengths)
    wanted = wanted_backend(backend)
    convolve = None
    if wanted not in ("reference", "chunked") and x.dtype != torch.float64 and weight.dtype != torch.float64:
        convolve = faster_op("causal_conv1d", x.device.type, wanted)
    y = (convolve or causal_conv1d_reference)(x, weight, bias, activation, initial_state, lengths)
    return y, last_inputs(x, weight.shape[1], initial_state, lengths)


def causal_conv1d_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    initial_state: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    r"""
    Definition of the output `y` of `causal_conv1d`, `(b, l, d)`, in torch on any device and in any dtype.

        y_t = activation(bias + sum_j weight[:, j] * x_{t - (w - 1) + j})

    The convolution of Gu and Dao 2023, https://arxiv.org/abs/2312.00752, Figure 3. Arguments as in `causal_conv1d`.
    """
    (b, length, d), width = x.shape, weight.shape[1]
    before = x.new_zeros(b, width - 1, d) if initial_state is None else initial_state.to(x.dtype).transpose(1, 2)
    padded = torch.cat([before, x], dim=1)  # [b, w - 1 + l, d]
    y = padded[:, :length] * weight[:, 0]
    for j in range(1, width):
        y = y + padded[:, j : j + length] * weight[:, j]
    if bias is not None:
        y = y + bias
    if activation == "silu":
        y = F.silu(y)
    if lengths is not None:
        y = y.masked_fill((torch.arange(length, device=x.device) >= lengths[:, None])[:, :, None], 0)
    return y.to(x.dtype)


def last_inputs(x: Tensor, width: int, initial_state: Tensor | None, lengths: Tensor | None) -> Tensor:
    """The `width - 1` inputs before each row's end, `(b, d, width - 1)`, reaching back into `initial_state`."""
    b, length, d = x.shape
    kept = x.new_zeros(b, d, width - 1) if initial_state is None else initial_state.to(x.dtype)
    if width == 1 or length == 0:
        return kept
    if lengths is None:
        recent = torch.cat([kept, x[:, max(0, length - width + 1) :].transpose(1, 2)], dim=2)
        return recent[:, :, 1 - width :]
    # What remains is a window on (initial_state, x) that begins at the row's length.
    window = lengths[:, None] + torch.arange(width - 1, device=x.device)  # [b, w - 1]
    from_state = kept.gather(2, window.clamp(max=width - 2)[:, None].expand(-1, d, -1))
    from_x = x.gather(1, (window - (width - 1)).clamp(min=0)[:, :, None].expand(-1, -1, d))
    return torch.where((window < width - 1)[:, None], from_state, from_x.transpose(1, 2))


def _check(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    activation: str | None,
    initial_state: Tensor | None,
    lengths: Tensor | None,
) -> None:
    if activation not in (None, "silu"):
        raise ValueError(f"`activation` must be 'silu' or None, got {activation!r}.")
    if x.dim() != 3 or weight.dim() != 2 or weight.shape[1] == 0:
        raise ValueError(f"`x` must be (b, l, d) and `weight` (d, w), got {tuple(x.shape)} and {tuple(weight.shape)}.")
    (b, _, d), width = x.shape, weight.shape[1]
    for name, tensor, shape in (
        ("weight", weight, (d, width)),
        ("bias", bias, (d,)),
        ("initial_state", initial_state, (b, d, width - 1)),
        ("lengths", lengths, (b,)),
    ):
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"`{name}` must have shape {shape}, got {tuple(tensor.shape)}.")
