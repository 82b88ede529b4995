"""
A layer of gated recurrent units as ONNX's own `GRU`, for `hf_seqrec.checkpoints.export_onnx`; needs the extra `onnx`.

torch takes its own apart, position by position, when it is exported.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from . import onnx_functions


class ExportableGRU(nn.Module):
    """Another form of a `torch.nn.GRU` of one layer without biases, batch first, with the same parameters."""

    def __init__(self, gru: nn.GRU) -> None:
        super().__init__()
        assert gru.num_layers == 1
        assert gru.batch_first
        assert not gru.bias
        assert not gru.bidirectional
        self.hidden_size = gru.hidden_size
        self.weights = nn.ParameterList([gru.weight_ih_l0, gru.weight_hh_l0])

    def forward(self, inputs: Tensor, state: Tensor | None = None) -> tuple[Tensor, None]:
        """Map `(b, l, i)` to the states of all positions, `(b, l, h)`, from a first one of shape `(1, b, h)`."""
        if state is None:
            state = inputs.new_zeros(1, inputs.shape[0], self.hidden_size)
        # torch keeps the gates as reset, update, candidate; ONNX as update, reset, candidate.
        weight_ih, weight_hh = (
            torch.cat([update, reset, candidate])
            for reset, update, candidate in (weight.chunk(3) for weight in self.weights)
        )
        return _recurrence(inputs, weight_ih, weight_hh, state, self.hidden_size), None


@torch.library.custom_op("hf_seqrec::onnx_gru", mutates_args=())
def _recurrence(inputs: Tensor, weight_ih: Tensor, weight_hh: Tensor, state: Tensor, hidden_size: int) -> Tensor:
    """States of all positions, `(b, l, h)`; gates in ONNX's order."""
    states, h = [], state[0]
    for x_t in (inputs @ weight_ih.T).unbind(1):
        (z_x, r_x, n_x), (z_h, r_h, n_h) = x_t.chunk(3, dim=1), (h @ weight_hh.T).chunk(3, dim=1)
        z = torch.sigmoid(z_x + z_h)
        h = (1 - z) * torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h) + z * h
        states.append(h)
    return torch.stack(states, dim=1)


@_recurrence.register_fake
def _(inputs: Tensor, weight_ih: Tensor, weight_hh: Tensor, state: Tensor, hidden_size: int) -> Tensor:
    return inputs.new_empty(inputs.shape[0], inputs.shape[1], hidden_size)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return what `torch.onnx.export` has to know as its `custom_translation_table`."""
    return {torch.ops.hf_seqrec.onnx_gru.default: onnx_functions.gru}
