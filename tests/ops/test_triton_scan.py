"""
The Triton scan and convolution against their definitions: in the interpreter, through the compiler, on a GPU.

The interpreter has to be chosen before Triton is imported, for the whole process. So the tests marked `interpreted`
are skipped in a plain run, and `test_in_the_interpreter` runs them in a process of their own.
"""

# ruff: noqa: E402 (without Triton there is nothing to import)

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from torch import Tensor

triton = pytest.importorskip("triton")

from hf_seqrec.models.op_causal_conv import causal_conv1d_reference
from hf_seqrec.models.op_selective_scan import selective_scan_reference
from hf_seqrec.ops import triton_conv, triton_kernels, triton_scan

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="runs inside test_in_the_interpreter")
compiled = pytest.mark.skipif(INTERPRETED, reason="the interpreter does not compile")


def scan_inputs(b: int, length: int, d: int, n: int, softplus: bool = True, absent: tuple[str, ...] = ()) -> dict:
    generator = torch.Generator().manual_seed(b + length + d + n)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    inputs = {
        "x": normal(b, length, d),
        "delta": normal(b, length, d) if softplus else normal(b, length, d).abs() * 0.3,
        "A": -normal(d, n).abs() - 0.1,
        "B": normal(b, length, n),
        "C": normal(b, length, n),
        "D": normal(d),
        "z": normal(b, length, d),
        "delta_bias": normal(d) * 0.3 if softplus else normal(d).abs() * 0.1,
        "initial_state": normal(b, d, n),
    }
    return {name: tensor for name, tensor in inputs.items() if name not in absent}


def conv_inputs(b: int, length: int, d: int, width: int, absent: tuple[str, ...] = ()) -> dict:
    generator = torch.Generator().manual_seed(b + length + d + width)
    shapes = {"x": (b, length, d), "weight": (d, width), "bias": (d,), "initial_state": (b, d, width - 1)}
    return {
        name: torch.randn(shape, dtype=torch.float64, generator=generator)
        for name, shape in shapes.items()
        if name not in absent
    }


def outputs_and_gradients(function, inputs: dict, device="cpu", dtype=torch.float64, half=None, **options) -> dict:
    """Everything a call returns, and the gradient of every input, for one fixed loss."""
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for name, tensor in inputs.items():
        in_half = half is not None and name in ("x", "delta", "B", "C", "z")
        tensors[name] = tensor.to(device, half if in_half else dtype, copy=True).requires_grad_()
    outputs = function(**tensors, **options)
    # A scan returns its last state too.
    outputs = {"y": outputs} if isinstance(outputs, Tensor) else dict(zip(("y", "state"), outputs, strict=True))
    loss = 0
    for output in outputs.values():
        weight = torch.randn(output.shape, dtype=torch.float64, generator=generator)
        loss = loss + (output.double() * weight.to(device)).sum()
    loss.backward()
    gradients = {f"gradient of {name}": tensor.grad for name, tensor in tensors.items()}
    return outputs | gradients


def assert_close(found: dict, expected: dict, tolerance: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape, name
        if value.numel():
            error = (found[name].cpu().double() - value).norm() / value.norm().clamp(min=1e-30)
            assert error < tolerance, f"{name}: relative error {error:.1e}"


def check_scan(inputs: dict, tolerance: float, device="cpu", dtype=torch.float32, half=None, **options) -> dict:
    if half is not None:  # both start from the same rounded numbers
        inputs = {k: v.to(half).double() if k in ("x", "delta", "B", "C", "z") else v for k, v in inputs.items()}
    on_device = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in options.items()}
    expected = outputs_and_gradients(selective_scan_reference, inputs, **options)
    found = outputs_and_gradients(triton_scan.selective_scan, inputs, device, dtype, half, **on_device)
    assert_close(found, expected, tolerance)
    return found


def check_conv(inputs: dict, tolerance: float, device="cpu", dtype=torch.float32, **options) -> None:
    on_device = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in options.items()}
    rounded = {k: v.to(dtype).double() for k, v in inputs.items()}
    expected = outputs_and_gradients(causal_conv1d_reference, rounded, **options)
    found = outputs_and_gradients(triton_conv.causal_conv1d, rounded, device, dtype, **on_device)
    assert_close(found, expected, tolerance)


# In the interpreter, on a CPU


@compiled
def test_in_the_interpreter() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "interpreted", __file__]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTEST_ADDOPTS": ""}
    root = Path(__file__).resolve().parents[2]
    run = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert re.search(r"\b\d+ passed", run.stdout), run.stdout


@interpreted
@pytest.mark.parametrize(
    ("b", "length", "d", "n"),
    [(2, 1, 4, 4), (1, triton_scan.CHUNK, 5, 3), (2, 2 * triton_scan.CHUNK + 3, 35, 6), (1, 2, 1, 1)],
)
def test_interpreted_scan_is_the_definition(b: int, length: int, d: int, n: int) -> None:
    check_scan(scan_inputs(b, length, d, n), 2e-6, delta_softplus=True)


@interpreted
def test_interpreted_scan_without_its_options() -> None:
    absent = ("D", "z", "delta_bias", "initial_state")
    check_scan(scan_inputs(2, 11, 4, 4, softplus=False, absent=absent), 2e-6)


@interpreted
def test_interpreted_scan_stops_at_each_rows_end() -> None:
    lengths = torch.tensor([0, 1, 8, 13])
    found = check_scan(scan_inputs(4, 13, 4, 4), 2e-6, delta_softplus=True, lengths=lengths)
    for name in ("y", "gradient of x", "gradient of delta", "gradient of B", "gradient of C", "gradient of z"):
        assert not found[name][0].any()
        assert not found[name][1, 1:].any()


@interpreted
@pytest.mark.parametrize("lengths", [None, torch.tensor([70, 150])])
def test_interpreted_scan_in_segments(monkeypatch: pytest.MonkeyPatch, lengths: Tensor | None) -> None:
    monkeypatch.setattr(triton_scan, "processors", lambda device: 100)
    inputs = scan_inputs(2, 150, 4, 4)
    assert triton_scan._Shapes.of(inputs["x"], inputs["A"], blocks_d=1).n_segments > 1
    check_scan(inputs, 2e-6, delta_softplus=True, lengths=lengths)


@interpreted
def test_interpreted_scan_reads_chunks_where_they_lie() -> None:
    inputs = scan_inputs(2, 9, 4, 4)
    plain = outputs_and_gradients(triton_scan.selective_scan, inputs, dtype=torch.float32, delta_softplus=True)
    wide = torch.cat([inputs["x"], inputs["z"]], dim=-1).float()
    projected = torch.cat([inputs["B"][..., :3], inputs["B"], inputs["C"]], dim=-1).float()
    inputs = {name: tensor.float() for name, tensor in inputs.items()}
    inputs["x"], inputs["z"] = wide.chunk(2, dim=-1)
    _, inputs["B"], inputs["C"] = projected.split([3, 4, 4], dim=-1)
    y, state = triton_scan.selective_scan(**inputs, delta_softplus=True)
    torch.testing.assert_close(y, plain["y"], rtol=0, atol=0)
    torch.testing.assert_close(state, plain["state"], rtol=0, atol=0)


@interpreted
def test_interpreted_loss_on_the_state_alone() -> None:
    inputs = {name: tensor.float().requires_grad_() for name, tensor in scan_inputs(2, 9, 4, 4).items()}
    double = {name: tensor.detach().double().requires_grad_() for name, tensor in inputs.items()}
    triton_scan.selective_scan(**inputs, delta_softplus=True)[1].square().sum().backward()
    selective_scan_reference(**double, delta_softplus=True)[1].square().sum().backward()
    names = [name for name in inputs if name not in ("C", "D", "z")]
    assert_close({k: inputs[k].grad for k in names}, {k: double[k].grad for k in names}, 2e-6)


@interpreted
@pytest.mark.parametrize(("b", "length", "d", "width"), [(2, 1, 3, 4), (1, 20, 65, 4), (2, 40, 5, 2), (1, 3, 2, 1)])
@pytest.mark.parametrize("activation", ["silu", None])
def test_interpreted_convolution_is_the_definition(b, length, d, width, activation) -> None:
    check_conv(conv_inputs(b, length, d, width), 2e-6, activation=activation)
    check_conv(conv_inputs(b, length, d, width, absent=("bias", "initial_state")), 2e-6, activation=activation)


@interpreted
def test_interpreted_convolution_stops_at_each_rows_end() -> None:
    lengths = torch.tensor([0, 2, 17, 20])
    check_conv(conv_inputs(4, 20, 3, 4), 2e-6, activation="silu", lengths=lengths)


@interpreted
def test_interpreted_empty_rows() -> None:
    inputs = {name: tensor.float() for name, tensor in scan_inputs(2, 0, 3, 4).items()}
    y, state = triton_scan.selective_scan(**inputs)
    assert y.shape == (2, 0, 3)
    torch.testing.assert_close(state, inputs["initial_state"])


def test_float64_is_refused() -> None:
    with pytest.raises(TypeError, match=r"`x` must be float32, bfloat16 or float16, got torch\.float64"):
        triton_scan.selective_scan(**scan_inputs(1, 2, 3, 4))


# Through the compiler, without a GPU


ACTIVATIONS = ("x", "delta", "B", "C", "z", "y", "y_ungated", "grad_y", "grad_x", "grad_delta", "grad_z")
INTEGERS = re.compile(r".*_[bl]|length|batch|segment|n_segments|parts")


def resources(kernel, constants: dict, activation: str, capability: int, registers: int | None = None, warps: int = 1):
    """Registers a thread and bytes of stack (spills) of a kernel, from the machine code."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, attributes = {}, {}
    for index, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif INTEGERS.fullmatch(name):
            signature[name] = "i32"
        else:
            signature[name] = activation if name in ACTIVATIONS else "*fp32"
            attributes[(index,)] = [["tt.divisibility", 16]]
    constexprs = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constexprs, attrs=attributes)
    options = {"num_warps": warps, "enable_fp_fusion": True} | ({"maxnreg": registers} if registers else {})
    binary = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm["cubin"]
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        command = [tool, "-res-usage", file.name]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", report)
    assert found is not None, report
    return int(found[1]), int(found[2])


@compiled
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("activation", ["*fp32", "*bf16"])
@pytest.mark.parametrize("n", [16, 32])
def test_forward_fits_its_registers(capability: int, activation: str, n: int) -> None:
    constants = {"lengths": None, "initial": None, "total_step": None, "WIDTH": 128, "N": n, "PAD_N": n}
    constants |= {"BLOCK_D": 32, "CHUNK": triton_scan.CHUNK, "SOFTPLUS": True, "UNIT": 4}
    limit = triton_scan._FORWARD_REGISTERS
    used, spilled = resources(triton_kernels.scan_kernel, constants, activation, capability, limit)
    assert used <= limit
    assert spilled == 0


@compiled
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("activation", ["*fp32", "*bf16"])
def test_backward_barely_spills(capability: int, activation: str) -> None:
    constants = {"lengths": None, "WIDTH": 128, "N": 32, "PAD_N": 32, "BLOCK_N": triton_scan._BACKWARD_BLOCK_N}
    constants |= {"BLOCK_D": triton_scan._BACKWARD_BLOCK_D, "CHUNK": triton_scan.CHUNK, "SOFTPLUS": True, "UNIT": 4}
    limit = triton_scan._BACKWARD_REGISTERS
    used, spilled = resources(triton_kernels.scan_backward_kernel, constants, activation, capability, limit)
    assert used <= limit
    # A few values that the inner loop does not touch.
    assert spilled <= 64


@compiled
@pytest.mark.parametrize("kernel", ["conv_kernel", "conv_backward_kernel"])
def test_convolution_does_not_spill(kernel: str) -> None:
    constants = {"lengths": None, "initial": None, "WIDTH": 128, "TAPS": 4, "BLOCK_L": triton_conv._BLOCK_L}
    constants |= {"grad_initial": None} if "backward" in kernel else {}
    constants |= {"BLOCK_D": triton_conv._BLOCK_D, "SILU": True}
    used, spilled = resources(getattr(triton_conv, kernel), constants, "*fp32", 90, warps=4)
    assert used <= 168
    assert spilled == 0


# On a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("n", [1, 16, 32, 100])
@pytest.mark.parametrize(("b", "length", "d"), [(3, 1, 128), (2, 63, 128), (5, 200, 128), (2, 1000, 64), (3, 37, 50)])
def test_gpu_scan_is_the_definition(b: int, length: int, d: int, n: int) -> None:
    check_scan(scan_inputs(b, length, d, n), 1e-5, "cuda", delta_softplus=True)


@pytest.mark.gpu
def test_gpu_scan_of_a_full_device() -> None:
    inputs = scan_inputs(300, 40, 128, 32)
    assert triton_scan._Shapes.of(inputs["x"].cuda(), inputs["A"], blocks_d=4).n_segments == 1
    check_scan(inputs, 1e-5, "cuda", delta_softplus=True)


@pytest.mark.gpu
def test_gpu_scan_without_its_options() -> None:
    absent = ("D", "z", "delta_bias", "initial_state")
    check_scan(scan_inputs(2, 130, 64, 16, softplus=False, absent=absent), 1e-5, "cuda")


@pytest.mark.gpu
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_gpu_scan_in_half_precision(half: torch.dtype) -> None:
    # Sums are float32, so the error is that of rounding what is read and written once.
    check_scan(scan_inputs(4, 200, 128, 32), 1e-2, "cuda", half=half, delta_softplus=True)


@pytest.mark.gpu
@pytest.mark.parametrize("length", [40, 700])
def test_gpu_scan_stops_at_each_rows_end(length: int) -> None:
    lengths = torch.tensor([0, 1, length // 2, length])
    check_scan(scan_inputs(4, length, 128, 16), 1e-5, "cuda", delta_softplus=True, lengths=lengths)


@pytest.mark.gpu
def test_gpu_gradients_repeat_bit_by_bit() -> None:
    inputs = scan_inputs(4, 600, 128, 32)
    first, second = (
        outputs_and_gradients(triton_scan.selective_scan, inputs, "cuda", torch.float32, delta_softplus=True)
        for _ in range(2)
    )
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("b", "length", "d", "width"), [(3, 200, 128, 4), (2, 33, 50, 3), (2, 1, 128, 4)])
def test_gpu_convolution_is_the_definition(b, length, d, width, dtype) -> None:
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    check_conv(conv_inputs(b, length, d, width), tolerance, "cuda", dtype, activation="silu")
    lengths = torch.randint(0, length + 1, (b,))
    check_conv(conv_inputs(b, length, d, width), tolerance, "cuda", dtype, activation="silu", lengths=lengths)


@pytest.mark.gpu
def test_gpu_operators_obey_torch_library() -> None:
    tensors = {k: v.float().cuda().requires_grad_() for k, v in scan_inputs(2, 20, 8, 4).items()}
    torch.library.opcheck(triton_scan._scan, (*tensors.values(), None, True, True))
    tensors = {k: v.float().cuda().requires_grad_() for k, v in conv_inputs(2, 20, 8, 4).items()}
    torch.library.opcheck(triton_conv._conv, (*tensors.values(), None, True))


@pytest.mark.gpu
def test_gpu_compiles_into_one_graph() -> None:
    inputs = {name: tensor.float().cuda() for name, tensor in scan_inputs(4, 50, 64, 16).items()}
    conv = {name: tensor.float().cuda() for name, tensor in conv_inputs(4, 50, 64, 4).items()}

    def block(scan: dict, conv: dict) -> tuple[Tensor, Tensor]:
        x = triton_conv.causal_conv1d(**conv, activation="silu")
        return triton_scan.selective_scan(**(scan | {"x": x}), delta_softplus=True)

    def run(function) -> list[Tensor]:
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in inputs.items()}
        taps = {name: tensor.clone().requires_grad_() for name, tensor in conv.items()}
        y, state = function(leaves, taps)
        (y.square().sum() + state.sum()).backward()
        return [y, state, *(t.grad for n, t in leaves.items() if n != "x"), *(t.grad for t in taps.values())]

    for found, expected in zip(run(torch.compile(block, fullgraph=True)), run(block), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
