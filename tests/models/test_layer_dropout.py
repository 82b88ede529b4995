import pytest
import torch

from hf_seqrec.models.layer_dropout import Dropout


@pytest.fixture(params=["numba", "chunked"], autouse=True)
def way(request, monkeypatch):
    """With the compiled kernel and without."""
    if request.param == "numba":
        pytest.importorskip("numba")
    monkeypatch.setenv("HF_SEQREC_SCAN", request.param)
    return request.param


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.9])
def test_drops_at_the_rate_and_keeps_the_mean(rate):
    torch.manual_seed(0)
    output = Dropout(rate)(torch.ones(1001, 999))
    # A million decisions: five standard deviations are 0.0025.
    assert (output == 0).float().mean().item() == pytest.approx(rate, abs=0.0025)
    assert output.max().item() == pytest.approx(1 / (1 - rate), rel=1e-3)
    assert output.mean().item() == pytest.approx(1, abs=0.0025 / (1 - rate))
    # No stripes: neighbours, which may share a draw, are dropped independently, and so are whole rows and columns.
    dropped = (output == 0).double()
    for shift in (1, 2, 3, 4):
        together = (dropped[:, :-shift] * dropped[:, shift:]).mean().item()
        assert together == pytest.approx(rate**2, abs=0.0025)
    assert dropped.mean(dim=0).std() < 0.02
    assert dropped.mean(dim=1).std() < 0.02


def test_gradient_goes_through_what_was_kept():
    torch.manual_seed(0)
    values = torch.ones(3, 5, 7, requires_grad=True)
    output = Dropout(0.5)(values)
    output.sum().backward()
    assert torch.equal(values.grad, output.detach())


def test_a_seed_fixes_the_mask():
    masks = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        masks.append(Dropout(0.3)(torch.ones(50)))
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


def test_calls_are_independent():
    torch.manual_seed(0)
    dropped = torch.stack([(Dropout(0.5)(torch.ones(100_000)) == 0).double() for _ in range(6)])
    # Of 100,000 pairs each five standard deviations are 0.016.
    for shift in (0, 1, 2):
        correlations = torch.corrcoef(torch.cat([dropped[:, : 99_990 - shift], dropped[:, shift:99_990]]))
        correlations.fill_diagonal_(0)
        if shift == 0:
            # Each with itself.
            correlations[range(6), range(6, 12)] = correlations[range(6, 12), range(6)] = 0
        assert correlations.abs().max() < 0.016


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("n", [0, 1, 15, 17, 4096, 4097, 300_001])
def test_every_element_is_kept_as_it_is_or_dropped(n, dtype):
    torch.manual_seed(0)
    values = torch.arange(1, n + 1, dtype=torch.float32).to(dtype)
    output = Dropout(0.5)(values)
    kept = output != 0
    assert torch.equal(output[kept], 2 * values[kept])
    assert n < 4096 or 0.4 < kept.float().mean() < 0.6


def test_result_does_not_depend_on_the_threads():
    threads = torch.get_num_threads()
    results = []
    try:
        for n_threads in (1, 3):
            torch.set_num_threads(n_threads)
            torch.manual_seed(0)
            results.append(Dropout(0.2)(torch.ones(2**20).view(2**10, 2**10).T))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*results)


def test_does_nothing_where_torch_does_nothing():
    values = torch.randn(4, 4)
    assert torch.equal(Dropout(0.5).eval()(values), values)
    assert torch.equal(Dropout(0.0)(values), values)
    assert not Dropout(1.0)(values).any()


def test_keeps_the_type():
    assert Dropout(0.5)(torch.ones(9, dtype=torch.bfloat16)).dtype == torch.bfloat16
