"""
What an exported model computes where torch has no words for it, in onnxscript's: `op` makes ONNX nodes, not numbers.

Each function has its definition in torch, and the shapes, in `onnx_scan` or `onnx_gru`.
"""

# Python to look at, and another language: its annotations are types of ONNX.
# mypy: ignore-errors

from onnxscript import FLOAT, graph, script
from onnxscript import opset18 as op
from onnxscript.values import Opset


@script(Opset("hf_seqrec", 1), default_opset=op)
def selective_scan(
    u: FLOAT[...],
    delta: FLOAT[...],
    A: FLOAT[...],
    B: FLOAT[...],
    C: FLOAT[...],
    initial_state: FLOAT[...],
) -> tuple[FLOAT[...], FLOAT[...]]:
    @graph()
    def step(
        state: FLOAT[...],
        u_t: FLOAT[...],
        delta_t: FLOAT[...],
        B_t: FLOAT[...],
        C_t: FLOAT[...],
    ):
        last = op.Constant(value_ints=[-1])
        middle = op.Constant(value_ints=[1])
        decay = op.Exp(op.Unsqueeze(delta_t, last) * A)
        following = decay * state + op.Unsqueeze(u_t, last) * op.Unsqueeze(B_t, middle)
        y_t = op.ReduceSum(following * op.Unsqueeze(C_t, middle), last, keepdims=0)
        return following, y_t

    final_state, y = op.Scan(
        initial_state,
        u,
        delta,
        B,
        C,
        body=step,
        num_scan_inputs=4,
        scan_input_axes=[1, 1, 1, 1],
        scan_output_axes=[1],
    )
    return y, final_state


@script(Opset("hf_seqrec", 1), default_opset=op)
def gru(
    inputs: FLOAT[...],
    weight_ih: FLOAT[...],
    weight_hh: FLOAT[...],
    state: FLOAT[...],
    hidden_size: int,
) -> FLOAT[...]:
    first = op.Constant(value_ints=[0])
    states, _ = op.GRU(
        op.Transpose(inputs, perm=[1, 0, 2]),
        op.Unsqueeze(weight_ih, first),
        op.Unsqueeze(weight_hh, first),
        None,
        None,
        state,
        hidden_size=hidden_size,
        linear_before_reset=1,
    )  # [l, 1, b, h]
    return op.Transpose(op.Squeeze(states, op.Constant(value_ints=[1])), perm=[1, 0, 2])
