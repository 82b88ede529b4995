"""The torch scans against the definition, and the choice between the ways to compute it."""

import functools
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from hf_seqrec import Mamba4Rec, Mamba4RecConfig
from hf_seqrec.models.op_backends import faster_op
from hf_seqrec.models.op_selective_scan import (
    selective_scan,
    selective_scan_chunked,
    selective_scan_reference,
    selective_state_update,
)


def scan_inputs(
    b: int, length: int, d: int, n: int, dtype: torch.dtype = torch.float64, lengths: bool = False, seed: int = 0
) -> dict[str, Tensor | bool]:
    """Random arguments of a scan, all that can carry a gradient with `requires_grad`."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tensors = {
        "x": randn(b, length, d),
        "delta": randn(b, length, d) - 2,
        "A": -torch.arange(1, n + 1, dtype=torch.float64).expand(d, n) * (0.5 + torch.rand(d, 1, generator=generator)),
        "B": randn(b, length, n),
        "C": randn(b, length, n),
        "D": randn(d),
        "z": randn(b, length, d),
        "delta_bias": randn(d) - 1,
        "initial_state": randn(b, d, n),
    }
    arguments: dict[str, Tensor | bool] = {name: tensor.to(dtype).requires_grad_() for name, tensor in tensors.items()}
    arguments["delta_softplus"] = True
    if lengths:
        arguments["lengths"] = torch.randint(0, length + 1, (b,), generator=generator)
    return arguments


def test_definition_against_numbers_worked_out_by_hand() -> None:
    # One channel, one state. delta = 1, A = -log 2, so a step halves the state and adds B x.
    x = torch.tensor([[[4.0], [2.0], [0.0]]])
    A = -torch.log(torch.tensor([[2.0]]))
    B = torch.tensor([[[1.0], [3.0], [1.0]]])
    C = torch.tensor([[[1.0], [1.0], [10.0]]])
    for scan in (selective_scan_reference, selective_scan_chunked, selective_scan):
        y, state = scan(x, torch.ones_like(x), A, B, C, D=torch.tensor([0.5]))
        # h = 4, 2 + 6, 4; y = C h + x / 2
        torch.testing.assert_close(y, torch.tensor([[[4 + 2.0], [8 + 1.0], [40.0]]]))
        torch.testing.assert_close(state, torch.tensor([[[4.0]]]))


@pytest.mark.parametrize("with_lengths", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 5, 3), (3, 2, 4, 1), (2, 16, 3, 2), (2, 63, 5, 3)])
def test_chunked_is_the_definition_forward_and_backward(shape: tuple[int, ...], with_lengths: bool) -> None:
    arguments = scan_inputs(*shape, lengths=with_lengths)
    wanted = selective_scan_reference(**arguments)
    found = selective_scan_chunked(**arguments)
    torch.testing.assert_close(found, wanted)

    weights = [torch.randn_like(output) for output in wanted]
    leaves = [value for value in arguments.values() if isinstance(value, Tensor) and value.requires_grad]
    torch.testing.assert_close(
        torch.autograd.grad(found, leaves, weights), torch.autograd.grad(wanted, leaves, weights)
    )


def test_gradients_against_finite_differences() -> None:
    arguments = scan_inputs(2, 18, 2, 2)
    names = [name for name, value in arguments.items() if isinstance(value, Tensor)]

    def scan(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        return selective_scan_chunked(**dict(zip(names, tensors, strict=True)), delta_softplus=True)

    assert torch.autograd.gradcheck(scan, [arguments[name] for name in names])


def test_row_with_length_equals_the_row_alone() -> None:
    arguments = scan_inputs(3, 20, 4, 2)
    arguments["lengths"] = torch.tensor([20, 7, 0])
    for scan in (selective_scan_reference, selective_scan_chunked):
        y, state = scan(**arguments)
        cut = {
            name: value[1:2, :7] if name in ("x", "delta", "B", "C", "z") else value
            for name, value in arguments.items()
            if name not in ("initial_state", "lengths")
        }
        alone, alone_state = scan(**cut, initial_state=arguments["initial_state"][1:2])
        torch.testing.assert_close(y[1:2, :7], alone)
        torch.testing.assert_close(state[1:2], alone_state)
        assert y[1, 7:].eq(0).all()
        assert y[2].eq(0).all()
        torch.testing.assert_close(state[2], arguments["initial_state"][2])


def test_final_state_continues_the_sequence() -> None:
    arguments = scan_inputs(2, 40, 4, 3)
    along = {name: value for name, value in arguments.items() if name in ("x", "delta", "B", "C", "z")}
    rest = {name: value for name, value in arguments.items() if name not in along}
    y, final = selective_scan_chunked(**arguments)
    state, pieces = rest.pop("initial_state"), []
    for start, end in ((0, 25), (25, 26), (26, 40)):
        cut = {name: value[:, start:end] for name, value in along.items()}
        piece, state = selective_scan(**cut, **rest, initial_state=state)
        pieces.append(piece)
    torch.testing.assert_close(torch.cat(pieces, dim=1), y)
    torch.testing.assert_close(state, final)


def test_single_step_is_the_definition() -> None:
    arguments = scan_inputs(3, 1, 4, 2)
    wanted_y, wanted_state = selective_scan_reference(**arguments)
    step = {name: arguments[name].squeeze(1) for name in ("x", "delta", "B", "C", "z")}
    rest = {name: arguments[name] for name in ("A", "D", "delta_bias", "delta_softplus")}
    y, state = selective_state_update(arguments["initial_state"], **step, **rest)
    torch.testing.assert_close(y, wanted_y.squeeze(1))
    torch.testing.assert_close(state, wanted_state)


@pytest.mark.parametrize("scan", [selective_scan_reference, selective_scan_chunked, selective_scan])
def test_half_precision_keeps_the_state_in_float32(scan) -> None:
    arguments = scan_inputs(2, 9, 4, 3, dtype=torch.bfloat16)
    wanted, _ = selective_scan_reference(
        **{name: value.double() if isinstance(value, Tensor) else value for name, value in arguments.items()}
    )
    y, state = scan(**arguments)
    assert y.dtype == torch.bfloat16
    assert state.dtype == torch.float32
    torch.testing.assert_close(y.double(), wanted, rtol=2**-7, atol=1e-2)


def test_no_positions_return_the_initial_state() -> None:
    arguments = scan_inputs(2, 0, 4, 3)
    for scan in (selective_scan_reference, selective_scan_chunked, selective_scan):
        y, state = scan(**arguments)
        assert y.shape == (2, 0, 4)
        torch.testing.assert_close(state, arguments["initial_state"])


def test_memory_of_the_chunked_scan_does_not_grow_with_the_state() -> None:
    # Saved for the backward: a few (b, l, d) tensors and a state per chunk, far from (b, l, d, n).
    b, length, d, n = 2, 512, 32, 64
    arguments = scan_inputs(b, length, d, n, dtype=torch.float32)
    saved: dict[int, int] = {}

    def record(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor):
        selective_scan_chunked(**arguments)
    assert sum(saved.values()) < 4 * b * length * d * n / 2


@pytest.mark.parametrize(
    ("name", "shape"), [("delta", (2, 3, 5)), ("B", (2, 3, 9)), ("D", (3,)), ("lengths", (3,)), ("A", (5, 2))]
)
def test_wrong_shape_is_named(name: str, shape: tuple[int, ...]) -> None:
    arguments = scan_inputs(2, 3, 4, 2)
    arguments[name] = torch.ones(shape)
    with pytest.raises(ValueError, match=f"`{name}` must have shape"):
        selective_scan(**arguments)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_environment_chooses_the_scan(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_SEQREC_SCAN", backend)
    arguments = scan_inputs(2, 5, 4, 2, dtype=torch.float32)
    y, _ = selective_scan(**arguments)
    assert ("ChunkedScan" in _graph(y)) == (backend == "chunked")


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_caller_chooses_the_scan_and_the_environment_overrules(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = scan_inputs(2, 5, 4, 2, dtype=torch.float32)
    y, _ = selective_scan(**arguments, backend=backend)
    assert ("ChunkedScan" in _graph(y)) == (backend == "chunked")
    monkeypatch.setenv("HF_SEQREC_SCAN", "reference")
    y, _ = selective_scan(**arguments, backend=backend)
    assert "ChunkedScan" not in _graph(y)


def test_configuration_chooses_the_scan_and_does_not_save_it(tmp_path) -> None:
    model = Mamba4Rec(Mamba4RecConfig(vocab_size=11, hidden_size=8, state_size=3, scan_backend="reference"))
    input_ids = torch.tensor([[1, 2, 3]])
    assert "ChunkedScan" not in _graph(model(input_ids, labels=input_ids).loss)
    model.save_pretrained(tmp_path)
    assert "scan_backend" not in (tmp_path / "config.json").read_text()
    model = Mamba4Rec.from_pretrained(tmp_path, scan_backend="chunked")
    assert "ChunkedScan" in _graph(model(input_ids, labels=input_ids).loss)


def test_choice_is_logged_once(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[faster_op.__module__]
    monkeypatch.setattr(module.logger, "propagate", True)
    monkeypatch.setattr(module, "_cached_look_up", functools.cache(module._cached_look_up.__wrapped__))
    with caplog.at_level("INFO", logger=module.logger.name):
        for _ in range(2):
            selective_scan(**_on_meta(scan_inputs(1, 5, 4, 2, dtype=torch.float32)))
    assert [record.getMessage() for record in caplog.records] == ["selective_scan on meta: torch alone."]


def test_unknown_backend_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_SEQREC_SCAN", "fortran")
    with pytest.raises(ValueError, match=r"`HF_SEQREC_SCAN` must be one of reference, chunked, .*got 'fortran'"):
        selective_scan(**scan_inputs(2, 5, 4, 2))


def test_backend_of_another_device_is_an_error() -> None:
    with pytest.raises(ValueError, match="computes on cpu, got tensors on cuda"):
        faster_op("selective_scan", "cuda", "numba")


def test_device_without_a_backend_uses_torch() -> None:
    assert faster_op("selective_scan", "meta") is None
    arguments = scan_inputs(2, 20, 4, 2, dtype=torch.float32)
    y, state = selective_scan(**_on_meta(arguments))
    assert (y.shape, state.shape) == ((2, 20, 4), (2, 4, 2))


@pytest.mark.parametrize("missing", ["hf_seqrec", "numba"])
def test_falls_back_where_something_is_missing(missing: str) -> None:
    # As a package of another name, as from a checkpoint, in a process where the module cannot be imported.
    folder = os.path.dirname(sys.modules[selective_scan.__module__].__file__ or "")
    code = f"""
import importlib, sys, types
sys.modules[{missing!r}] = None
package = sys.modules["checkpoint"] = types.ModuleType("checkpoint")
package.__path__ = [{folder!r}]
module = importlib.import_module("checkpoint.op_selective_scan")
import torch
assert module.faster_op("selective_scan", "cpu") is None
x, B = torch.randn(2, 20, 4, requires_grad=True), torch.randn(2, 20, 3)
y, state = module.selective_scan(x, x, -torch.ones(4, 3), B, B, delta_softplus=True)
wanted, wanted_state = module.selective_scan_reference(x, x, -torch.ones(4, 3), B, B, delta_softplus=True)
torch.testing.assert_close((y, state), (wanted, wanted_state))
y.sum().backward()
try:
    module.faster_op("selective_scan", "cpu", "numba")
except ValueError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert result.returncode == 0, result.stderr
    assert "HF_SEQREC_SCAN" in result.stdout


def _on_meta(arguments: dict[str, Tensor | bool]) -> dict[str, Tensor | bool]:
    return {name: value.to("meta") if isinstance(value, Tensor) else value for name, value in arguments.items()}


def _graph(y: Tensor) -> str:
    """Names of the autograd nodes behind `y`."""
    names, waiting = [], [y.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None:
            names.append(node.name())
            waiting.extend(following for following, _ in node.next_functions)
    return " ".join(names)
