"""The adapters to mamba-ssm and causal-conv1d, with stand-ins that compute the definition on `(b, d, l)`."""

import importlib
import sys
import types
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hf_seqrec.models.op_causal_conv import causal_conv1d_reference
from hf_seqrec.models.op_selective_scan import selective_scan_reference

ADAPTERS = ("hf_seqrec.ops.mamba_ssm_scan", "hf_seqrec.ops.causal_conv1d_conv")


def selective_scan_fn(
    u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, return_last_state=False
):
    """What mamba-ssm's function takes and returns; like it, without a gradient for the state."""
    assert all(tensor.stride(-1) == 1 for tensor in (u, delta, B, C, z))
    assert len({tensor.dtype for tensor in (u, delta, B, C, z)}) == 1
    assert all(tensor.dtype == torch.float32 for tensor in (A, D, delta_bias))
    u, delta, B, C, z = (tensor.transpose(1, 2) for tensor in (u, delta, B, C, z))
    y, state = selective_scan_reference(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    return (y.transpose(1, 2), state.detach()) if return_last_state else y.transpose(1, 2)


def causal_conv1d_fn(x, weight, bias=None, activation=None):
    assert x.dtype == weight.dtype == bias.dtype
    y = F.conv1d(x, weight[:, None], bias, padding=weight.shape[1] - 1, groups=len(weight))[..., : x.shape[-1]]
    return F.silu(y) if activation == "silu" else y


@pytest.fixture
def adapters(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[types.ModuleType]]:
    modules = {
        "selective_scan_cuda": {},
        "causal_conv1d_cuda": {},
        "mamba_ssm": {},
        "mamba_ssm.ops": {},
        "mamba_ssm.ops.selective_scan_interface": {"selective_scan_fn": selective_scan_fn},
        "causal_conv1d": {"causal_conv1d_fn": causal_conv1d_fn},
    }
    for name, content in modules.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    for name in ADAPTERS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield [importlib.import_module(name) for name in ADAPTERS]
    for name in ADAPTERS:
        sys.modules.pop(name, None)


def scan_inputs() -> dict[str, Tensor]:
    b, length, d, n = 2, 7, 3, 4
    return {
        "x": torch.randn(b, length, d),
        "delta": torch.randn(b, length, d),
        "A": -torch.rand(d, n) - 0.1,
        "B": torch.randn(b, length, n),
        "C": torch.randn(b, length, n),
        "D": torch.randn(d),
        "z": torch.randn(b, length, d),
        "delta_bias": torch.randn(d),
    }


def test_scan_transposes_there_and_back(adapters) -> None:
    inputs = scan_inputs()
    results = []
    for scan in (adapters[0].selective_scan, selective_scan_reference):
        leaves = {name: tensor.clone().requires_grad_() for name, tensor in inputs.items()}
        y, state = scan(**leaves, delta_softplus=True)
        y.square().sum().backward()
        results.append([y, state, *(tensor.grad for tensor in leaves.values())])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


def test_scan_in_mixed_precision_gives_the_kernel_one_dtype(adapters) -> None:
    inputs = scan_inputs()
    half = inputs | {name: inputs[name].bfloat16() for name in ("x", "z")}
    y, state = adapters[0].selective_scan(**half, delta_softplus=True)
    expected, expected_state = selective_scan_reference(**half, delta_softplus=True)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected, rtol=0.1, atol=0.1)
    torch.testing.assert_close(state.float(), expected_state, rtol=0.1, atol=0.1)


def test_gradient_of_the_state_is_refused(adapters) -> None:
    leaves = {name: tensor.requires_grad_() for name, tensor in scan_inputs().items()}
    _, state = adapters[0].selective_scan(**leaves, delta_softplus=True)
    with pytest.raises(NotImplementedError, match="no gradient for the final state"):
        state.sum().backward()


def test_initial_state_and_lengths_go_to_triton(adapters, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    for name, function in (("triton_scan", "selective_scan"), ("triton_conv", "causal_conv1d")):
        module = types.ModuleType(name)
        setattr(module, function, lambda *args, initial_state, lengths: calls.append((initial_state, lengths)))
        monkeypatch.setattr(importlib.import_module("hf_seqrec.ops"), name, module, raising=False)
        monkeypatch.setitem(sys.modules, f"hf_seqrec.ops.{name}", module)
    inputs, state, lengths = scan_inputs(), torch.zeros(2, 3, 4), torch.tensor([1, 2])
    adapters[0].selective_scan(**inputs, initial_state=state)
    adapters[0].selective_scan(**inputs, lengths=lengths)
    adapters[1].causal_conv1d(inputs["x"], torch.randn(3, 4), lengths=lengths)
    adapters[1].causal_conv1d(inputs["x"], torch.randn(3, 5))
    assert calls == [(state, None), (None, lengths), (None, lengths), (None, None)]


@pytest.mark.parametrize("activation", ["silu", None])
def test_convolution_transposes_there_and_back(adapters, activation: str | None) -> None:
    x, weight, bias = torch.randn(2, 9, 3), torch.randn(3, 4), torch.randn(3)
    found = adapters[1].causal_conv1d(x, weight, bias, activation)
    torch.testing.assert_close(found, causal_conv1d_reference(x, weight, bias, activation))


@pytest.mark.parametrize("name", ADAPTERS)
def test_a_package_without_its_extension_does_not_count(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for extension in ("selective_scan_cuda", "causal_conv1d_cuda"):
        monkeypatch.setitem(sys.modules, extension, None)
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ImportError):
        importlib.import_module(name)
