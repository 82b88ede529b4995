"""The numba convolution against the definition in float64."""

import pytest
import torch

from hf_seqrec.models.op_causal_conv import causal_conv1d, causal_conv1d_reference

pytest.importorskip("numba")

from hf_seqrec.ops import numba_conv


def assert_near(found: torch.Tensor, wanted: torch.Tensor, tolerance: float) -> None:
    """Relative to the largest value, as rounding of a sum is."""
    assert found.shape == wanted.shape
    if wanted.numel():
        error = (found.double() - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12)
        assert error <= tolerance, f"relative error {error:.1e}"


@pytest.mark.parametrize("with_lengths", [False, True])
@pytest.mark.parametrize("activation", ["silu", None])
@pytest.mark.parametrize(
    ("b", "length", "d", "width"),
    [(3, 1, 5, 4), (2, 2, 16, 4), (3, 63, 100, 3), (2, 200, 128, 4), (2, 33, 7, 1), (1, 40, 48, 6), (2, 0, 3, 4)],
)
def test_is_the_definition_forward_and_backward(
    b: int, length: int, d: int, width: int, activation: str | None, with_lengths: bool
) -> None:
    shapes = [(b, length, d), (d, width), (d,), (b, d, width - 1)]
    inputs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    doubles = [tensor.detach().double().requires_grad_() for tensor in inputs]
    lengths = torch.randint(0, length + 1, (b,)) if with_lengths else None
    found = numba_conv.causal_conv1d(*inputs[:3], activation, inputs[3], lengths)
    wanted = causal_conv1d_reference(*doubles[:3], activation, doubles[3], lengths)
    assert_near(found, wanted, 1e-5)

    weights = torch.randn_like(found)
    gradients = torch.autograd.grad(found, inputs, weights)
    truths = torch.autograd.grad(wanted, doubles, weights.double())
    for gradient, truth in zip(gradients, truths, strict=True):
        assert_near(gradient, truth, 1e-4)


def test_without_bias_and_state_on_a_chunk_of_a_projection() -> None:
    x = torch.randn(3, 40, 64)[..., :32].requires_grad_()
    weight = torch.randn(32, 4, requires_grad=True)
    double, double_weight = (tensor.detach().double().requires_grad_() for tensor in (x, weight))
    found = numba_conv.causal_conv1d(x, weight, activation="silu")
    wanted = causal_conv1d_reference(double, double_weight, activation="silu")
    assert_near(found, wanted, 1e-5)
    gradients = torch.autograd.grad(found.square().sum(), [x, weight])
    truths = torch.autograd.grad(wanted.square().sum(), [double, double_weight])
    for gradient, truth in zip(gradients, truths, strict=True):
        assert_near(gradient, truth, 1e-4)


@pytest.mark.parametrize("b", [1, 3, 40])
def test_result_does_not_depend_on_the_threads(b: int) -> None:
    before = torch.get_num_threads()
    x, weight = torch.randn(b, 20000 // b + 400, 100), torch.randn(100, 4)
    assert x.numel() * 4 > 2**18  # enough to be divided
    results = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            results.append(numba_conv.causal_conv1d(x, weight, activation="silu"))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


def test_is_what_a_cpu_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.randn(2, 5, 3, requires_grad=True), torch.randn(3, 4)
    assert "numba_conv" in type(causal_conv1d(x, weight)[0].grad_fn).__name__
    monkeypatch.setenv("HF_SEQREC_SCAN", "chunked")
    assert "numba_conv" not in type(causal_conv1d(x, weight)[0].grad_fn).__name__


def test_half_precision_is_computed_in_float32() -> None:
    x, weight = torch.randn(2, 30, 20, dtype=torch.bfloat16), torch.randn(20, 4)
    y = numba_conv.causal_conv1d(x, weight, activation="silu")
    wanted = causal_conv1d_reference(x.double(), weight.double(), activation="silu")
    assert y.dtype == torch.bfloat16
    assert_near(y, wanted, 1e-2)


def test_float64_is_refused() -> None:
    with pytest.raises(TypeError, match="computes in float32, got float64"):
        numba_conv.causal_conv1d(torch.randn(1, 2, 3).double(), torch.randn(3, 4))


@pytest.mark.parametrize("with_all", [False, True])
def test_operator_contract(with_all: bool) -> None:
    x, weight = torch.randn(2, 5, 3, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    bias, state = torch.randn(3, requires_grad=True), torch.randn(2, 3, 3, requires_grad=True)
    rest = (bias, True, state, torch.tensor([5, 2])) if with_all else (None, False, None, None)
    torch.library.opcheck(numba_conv._conv, (x, weight, *rest))


@pytest.mark.slow
def test_compiles_in_one_graph() -> None:
    x, weight = torch.randn(2, 40, 20, requires_grad=True), torch.randn(20, 4, requires_grad=True)
    compiled = torch.compile(lambda: causal_conv1d(x, weight, activation="silu"), fullgraph=True, backend="aot_eager")
    found, wanted = compiled(), causal_conv1d(x, weight, activation="silu")
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(
        torch.autograd.grad(found[0].square().sum(), [x, weight]),
        torch.autograd.grad(wanted[0].square().sum(), [x, weight]),
    )
