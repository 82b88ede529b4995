"""
causal-conv1d's convolution, where somebody has built its CUDA extension; for comparing with the Triton one.

Its kernels know no rows of different lengths and only two to four taps: other calls go to Triton.
"""

# The package may be importable without its kernels; the extension tells.
import causal_conv1d_cuda  # noqa: F401
from causal_conv1d import causal_conv1d_fn
from torch import Tensor


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str | None = None,
    initial_state: Tensor | None = None,
    lengths: Tensor | None = None,
) -> Tensor:
    r"""
    Depthwise causal convolution by causal-conv1d's kernel: `(b, l, d)`.

    Arguments as in `causal_conv1d_reference` of `models/op_causal_conv.py`.
    """
    width = weight.shape[1]
    if initial_state is not None or lengths is not None or not 2 <= width <= 4 or x.numel() == 0:
        from . import triton_conv

        return triton_conv.causal_conv1d(x, weight, bias, activation, initial_state=initial_state, lengths=lengths)
    # The kernel reads (b, d, l) with either axis contiguous: this view is not copied.
    y = causal_conv1d_fn(
        x.transpose(1, 2),
        weight.to(x.dtype),
        None if bias is None else bias.to(x.dtype),
        activation=activation,
    )
    return y.transpose(1, 2)
