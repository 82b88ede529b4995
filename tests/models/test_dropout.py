import pytest
import torch

from hf_seqrec.models.dropout import Dropout


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.5, 0.9])
def test_drops_at_the_rate_and_keeps_the_mean(rate):
    torch.manual_seed(0)
    output = Dropout(rate)(torch.ones(1001, 999))
    # A million decisions: five standard deviations are 0.0025.
    assert (output == 0).float().mean().item() == pytest.approx(rate, abs=0.0025)
    assert output.max().item() == pytest.approx(1 / (1 - rate), rel=1e-3)
    assert output.mean().item() == pytest.approx(1, abs=0.0025 / (1 - rate))
    # No stripes: neighbours, which share a draw, are dropped independently, and so are whole rows and columns.
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


def test_does_nothing_where_torch_does_nothing():
    values = torch.randn(4, 4)
    assert torch.equal(Dropout(0.5).eval()(values), values)
    assert torch.equal(Dropout(0.0)(values), values)
    assert not Dropout(1.0)(values).any()


def test_keeps_the_type():
    assert Dropout(0.5)(torch.ones(9, dtype=torch.bfloat16)).dtype == torch.bfloat16
