"""The numba scan against the definition in float64, and in the places where compiled code on threads goes wrong."""

import os
import subprocess
import sys
import threading

import pytest
import torch
from torch import Tensor

from hf_seqrec.models.op_selective_scan import selective_scan, selective_scan_reference

pytest.importorskip("numba")

from hf_seqrec.ops import numba_scan
from hf_seqrec.ops.numba_kernels import CHUNK, WIDTH

ALONG = ("x", "delta", "B", "C", "z")


def scan_inputs(b: int, length: int, d: int, n: int, absent: tuple[str, ...] = ()) -> dict[str, Tensor | bool]:
    """Random float32 arguments; B, C and z are chunks of wider tensors, as the projections of a Mamba block are."""
    projected = torch.randn(b, length, 3 + 2 * n)
    tensors = {
        "x": torch.randn(b, length, d),
        "delta": torch.randn(b, length, d) - 2,
        "A": -torch.arange(1.0, n + 1).expand(d, n) * (0.5 + torch.rand(d, 1)),
        "B": projected[..., 3 : 3 + n],
        "C": projected[..., 3 + n :],
        "D": torch.randn(d),
        "z": torch.randn(b, length, 2 * d)[..., d:],
        "delta_bias": torch.randn(d) - 1,
        "initial_state": torch.randn(b, d, n),
    }
    return {
        **{name: tensor.requires_grad_() for name, tensor in tensors.items() if name not in absent},
        "delta_softplus": "softplus" not in absent,
    }


def in_float64(arguments: dict) -> dict:
    return {
        name: value.detach().double().requires_grad_()
        if isinstance(value, Tensor) and value.is_floating_point()
        else value
        for name, value in arguments.items()
    }


def assert_near(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    """Relative to the largest value, as rounding of a sum is."""
    error = (found.double() - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12)
    assert error <= tolerance, f"relative error {error:.1e}"


def compare_with_definition(arguments: dict) -> None:
    double = in_float64(arguments)
    wanted = selective_scan_reference(**double)
    found = numba_scan.selective_scan(**arguments)
    for output, truth in zip(found, wanted, strict=True):
        assert_near(output, truth, 1e-5)
    weights = [torch.randn_like(output) for output in found]
    names = [name for name, value in arguments.items() if isinstance(value, Tensor) and value.requires_grad]
    gradients = torch.autograd.grad(found, [arguments[name] for name in names], weights)
    truths = torch.autograd.grad(wanted, [double[name] for name in names], [weight.double() for weight in weights])
    for gradient, truth in zip(gradients, truths, strict=True):
        assert_near(gradient, truth, 1e-4)


@pytest.mark.parametrize("with_lengths", [False, True])
@pytest.mark.parametrize(
    ("b", "length", "d", "n"),
    [(3, 1, 5, 3), (1, 2, 48, 1), (5, 63, 100, 16), (3, CHUNK, 2 * WIDTH, 4), (3, CHUNK + 1, 7, 5), (2, 200, 128, 32)],
)
def test_is_the_definition_forward_and_backward(b: int, length: int, d: int, n: int, with_lengths: bool) -> None:
    arguments = scan_inputs(b, length, d, n)
    if with_lengths:
        arguments["lengths"] = torch.randint(0, length + 1, (b,))
    compare_with_definition(arguments)


def test_is_the_definition_over_a_long_history() -> None:
    compare_with_definition(scan_inputs(1, 1000, 5, 3))


@pytest.mark.parametrize(
    "absent", [("D",), ("z",), ("delta_bias",), ("initial_state",), ("softplus", "delta_bias", "D", "z")]
)
def test_optional_arguments(absent: tuple[str, ...]) -> None:
    arguments = scan_inputs(2, 40, 20, 3, absent)
    if "softplus" in absent:
        arguments["delta"] = arguments["delta"].detach().abs().requires_grad_()
    compare_with_definition(arguments)


def test_gradient_of_the_final_state_alone() -> None:
    arguments = scan_inputs(2, 40, 20, 3)
    double = in_float64(arguments)
    _, state = numba_scan.selective_scan(**arguments)
    _, wanted = selective_scan_reference(**double)
    found = torch.autograd.grad(state.square().sum(), [arguments["x"], arguments["initial_state"]])
    truths = torch.autograd.grad(wanted.square().sum(), [double["x"], double["initial_state"]])
    for gradient, truth in zip(found, truths, strict=True):
        assert_near(gradient, truth, 1e-4)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("b", [1, 3, 30])
def test_result_does_not_depend_on_the_threads(b: int, threads: int) -> None:
    before = torch.get_num_threads()
    arguments = scan_inputs(b, 120, 100, 32)
    arguments["lengths"] = torch.randint(60, 121, (b,))
    assert b * 120 * 100 * 32 > 2**18  # enough to be divided
    wanted = numba_scan.selective_scan(**arguments)
    try:
        torch.set_num_threads(threads)
        if threads > 1 and b == 3:
            compare_with_definition(arguments)
        found = numba_scan.selective_scan(**arguments)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], wanted[0])
    assert torch.equal(found[1], wanted[1])


def test_chunks_of_a_projection_are_read_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = scan_inputs(2, 10, 32, 4)
    copied = []
    original = torch.Tensor.contiguous
    monkeypatch.setattr(
        torch.Tensor,
        "contiguous",
        lambda tensor, **kwargs: copied.append(tensor) if not tensor.is_contiguous() else original(tensor, **kwargs),
    )
    assert not arguments["B"].is_contiguous()
    assert not arguments["z"].is_contiguous()
    with torch.no_grad():
        numba_scan.selective_scan(**arguments)
    assert copied == []


def test_transposed_inputs_are_copied_and_right() -> None:
    arguments = scan_inputs(2, 10, 5, 4)
    arguments["x"] = torch.randn(2, 5, 10).transpose(1, 2).requires_grad_()
    arguments["A"] = (-torch.rand(4, 5)).T.requires_grad_()
    arguments["initial_state"] = torch.randn(2, 4, 5).transpose(1, 2).requires_grad_()
    compare_with_definition(arguments)


def test_extreme_steps_stay_finite() -> None:
    arguments = {name: value.detach() for name, value in scan_inputs(1, 50, 16, 4, ("softplus",)).items() if name in (
        *ALONG, "A")}  # fmt: skip
    for delta in (0.0, 1e-8, 100.0, 1e4):
        arguments["delta"] = torch.full((1, 50, 16), delta)
        y, state = numba_scan.selective_scan(**arguments)
        wanted, wanted_state = selective_scan_reference(**in_float64(arguments))
        assert_near(y, wanted, 1e-5)
        assert_near(state, wanted_state, 1e-5)
    gates = torch.linspace(-120, 120, 50)[None, :, None].expand(1, 50, 16)
    wanted, _ = selective_scan_reference(
        **in_float64({**arguments, "z": gates, "delta": gates, "delta_softplus": True})
    )
    y, _ = numba_scan.selective_scan(**{**arguments, "z": gates, "delta": gates, "delta_softplus": True})
    assert_near(y, wanted, 1e-5)


@pytest.mark.parametrize("name", ["x", "delta", "A", "B", "C", "z"])
def test_not_a_number_is_passed_on(name: str) -> None:
    arguments = scan_inputs(2, 5, 16, 4)
    arguments[name] = arguments[name].detach().clone()
    arguments[name][0] = torch.nan
    y, _ = numba_scan.selective_scan(**arguments)
    assert y[0].isnan().any()


def test_denormal_numbers_are_flushed_in_the_kernel_only() -> None:
    tiny = torch.tensor(1e-42)
    assert tiny * 0.5 != 0
    arguments = {name: value for name, value in scan_inputs(1, 3000, 8, 2).items() if name != "initial_state"}
    arguments["A"] = torch.full((8, 2), -1.0, requires_grad=True)
    arguments["delta"] = torch.full((1, 3000, 8), 0.1)
    arguments["delta_softplus"], arguments["delta_bias"] = False, None
    y, _ = numba_scan.selective_scan(**arguments)
    (gradient,) = torch.autograd.grad(y[:, -1].sum(), arguments["x"])
    # exp(-0.1 * 880) is the smallest normal number, exp(-0.1 * 1030) the smallest denormal one.
    assert gradient[:, :1900].eq(0).all()
    assert gradient[:, 2200:].ne(0).any()
    assert tiny * 0.5 != 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    arguments = scan_inputs(2, 40, 20, 3)
    for name in ALONG:
        arguments[name] = arguments[name].detach().to(dtype).requires_grad_()
    y, state = numba_scan.selective_scan(**arguments)
    wanted, wanted_state = selective_scan_reference(**in_float64(arguments))
    assert (y.dtype, state.dtype) == (dtype, torch.float32)
    assert_near(y, wanted, 1e-2)
    assert_near(state, wanted_state, 1e-5)
    y.float().sum().backward()
    assert arguments["x"].grad.dtype == dtype


def test_autocast_leaves_the_state_in_float32() -> None:
    arguments = scan_inputs(2, 40, 20, 3)
    wanted, _ = numba_scan.selective_scan(**arguments)
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = selective_scan(**arguments)
    torch.testing.assert_close(y, wanted)


def test_float64_is_refused() -> None:
    with pytest.raises(TypeError, match="computes in float32, got float64"):
        numba_scan.selective_scan(**in_float64(scan_inputs(1, 4, 4, 2)))


def test_is_what_a_cpu_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = scan_inputs(2, 5, 4, 2)
    for setting in (None, "numba"):
        if setting:
            monkeypatch.setenv("HF_SEQREC_SCAN", setting)
        y, _ = selective_scan(**arguments)
        assert "numba_scan" in type(y.grad_fn).__name__


@pytest.mark.parametrize("with_all", [False, True])
def test_operator_contract(with_all: bool) -> None:
    absent = () if with_all else ("D", "z", "delta_bias", "initial_state")
    arguments = scan_inputs(2, 5, 6, 3, absent)
    lengths = torch.tensor([5, 3]) if with_all else None
    positional = [arguments.get(name) for name in ("x", "delta", "A", "B", "C", "D", "z", "delta_bias")]
    positional += [True, arguments.get("initial_state"), lengths, True]
    torch.library.opcheck(numba_scan._scan, positional)


@pytest.mark.slow
def test_compiles_in_one_graph() -> None:
    arguments = scan_inputs(2, 40, 20, 3)
    leaves = [value for value in arguments.values() if isinstance(value, Tensor)]
    # aot_eager: everything of torch.compile but the C++ compiler, which a test machine may lack.
    compiled = torch.compile(lambda: selective_scan(**arguments), fullgraph=True, backend="aot_eager")
    found, wanted = compiled(), selective_scan(**arguments)
    torch.testing.assert_close(found, wanted)
    weights = [torch.randn_like(output) for output in wanted]
    torch.testing.assert_close(
        torch.autograd.grad(found, leaves, weights), torch.autograd.grad(wanted, leaves, weights)
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork")
def test_runs_in_a_forked_child() -> None:
    code = """
import os, torch
torch.set_num_threads(2)
from hf_seqrec.ops.numba_scan import selective_scan
x, B = torch.randn(8, 100, 64, requires_grad=True), torch.randn(8, 100, 16)
def run():
    y, _ = selective_scan(x, x, -torch.ones(64, 16), B, B, delta_softplus=True)
    return y.detach()
wanted = run()
children = []
for _ in range(2):
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(run(), wanted) else 1)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
assert torch.equal(run(), wanted)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


def test_concurrent_callers() -> None:
    arguments = scan_inputs(4, 100, 64, 16)
    names = [name for name, value in arguments.items() if isinstance(value, Tensor)]

    def gradients() -> list[Tensor]:
        y, state = numba_scan.selective_scan(**arguments)
        return list(torch.autograd.grad(y.sum() + state.sum(), [arguments[name] for name in names]))

    wanted, found, errors = gradients(), [], []

    def work() -> None:
        try:
            found.extend(gradients() for _ in range(5))
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(found) == 20
    for one in found:
        assert all(torch.equal(a, b) for a, b in zip(one, wanted, strict=True))


SCAN_ONCE = """
import torch
from hf_seqrec.ops import numba_kernels
from hf_seqrec.ops.numba_scan import selective_scan
from hf_seqrec.models.op_selective_scan import selective_scan_reference
x, B = torch.randn(2, 40, 24, requires_grad=True), torch.randn(2, 40, 3)
arguments = (x, x, -torch.ones(24, 3), B, B, torch.ones(24), x, None, True)
found, wanted = selective_scan(*arguments)[0], selective_scan_reference(*arguments)[0]
torch.testing.assert_close(found, wanted)
torch.testing.assert_close(*(torch.autograd.grad(y.square().sum(), x) for y in (found, wanted)), atol=1e-4, rtol=1e-4)
print(numba_kernels.WIDTH, sum(numba_kernels.scan_forward.stats.cache_hits.values()))
"""


def _scan_in_a_new_process(before: str = "", **environment: str) -> list[str]:
    command = [sys.executable, "-c", before + SCAN_ONCE]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@pytest.mark.slow
def test_compiled_once_and_cached(tmp_path) -> None:
    assert _scan_in_a_new_process(NUMBA_CACHE_DIR=str(tmp_path))[1] == "0"
    assert _scan_in_a_new_process(NUMBA_CACHE_DIR=str(tmp_path))[1] == "1"


@pytest.mark.slow
def test_file_system_that_cannot_be_written_falls_back_to_memory(tmp_path) -> None:
    # Numba tries a folder by opening a temporary file there. Permissions would not stop a test that runs as root.
    read_only = """
import tempfile

def refuse(*args, **kwargs):
    raise OSError(30, "Read-only file system")

tempfile.TemporaryFile = refuse
"""
    assert _scan_in_a_new_process(read_only, NUMBA_CACHE_DIR=str(tmp_path))[1] == "0"
    assert list(tmp_path.rglob("*.nbi")) == []


@pytest.mark.slow
def test_processor_without_avx512() -> None:
    # Vectors of 8 and no instruction of AVX-512, which numba then leaves out.
    assert _scan_in_a_new_process(NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")[0] == "8"
