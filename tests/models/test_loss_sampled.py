import math

import pytest
import torch
import torch.nn.functional as F

from hf_seqrec.models import loss_sampled as sampled_losses
from hf_seqrec.models.loss_sampled import bce_loss, bpr_loss, gbce_beta, gbce_loss, sampled_softmax_loss

V, N_ITEMS = 31, 30


def example(m=23, n=5, d=8, shared=False, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    tensors = [
        torch.randn(shape, generator=generator, dtype=dtype, requires_grad=True) for shape in ((m, d), (V, d), (V,))
    ]
    labels = torch.randint(1, V, (m,), generator=generator)
    negatives = torch.randint(1, V, (n,) if shared else (m, n), generator=generator)
    # One that is some position's right item.
    negatives[..., 0] = labels[3]
    log_q = torch.rand(negatives.shape, generator=generator, dtype=dtype).log()
    return *tensors, labels, negatives, log_q


def by_definition(loss, hidden_states, item_embeddings, labels, negatives, log_q, bias):
    """Position after position, negative after negative."""
    total = 0.0
    for position, label in enumerate(labels.tolist()):
        drawn = (negatives if negatives.dim() == 1 else negatives[position]).tolist()
        log_qs = (log_q if negatives.dim() == 1 else log_q[position]).tolist()
        scores = item_embeddings @ hidden_states[position] + (0 if bias is None else bias)
        right = scores[label]
        kept = [(scores[row], value) for row, value in zip(drawn, log_qs, strict=True) if row != label]
        if loss == "sampled_softmax":
            others = sum(torch.exp(score) / (len(drawn) * math.exp(value)) for score, value in kept)
            total = total - torch.log(right.exp() / (right.exp() + others))
        elif loss == "bpr":
            total = total - sum(torch.log(torch.sigmoid(right - score)) for score, _ in kept) / len(kept)
        else:
            alpha = len(drawn) / (N_ITEMS - 1)
            beta = 1.0 if loss == "bce" else alpha * (0.75 * (1 - 1 / alpha) + 1 / alpha)
            bias_of_all = math.log(beta / len(drawn))
            positive = torch.log(torch.sigmoid(right + bias_of_all) ** beta)
            negative = sum(torch.log(1 - torch.sigmoid(score + bias_of_all)) for score, _ in kept)
            total = total - (positive + negative) / (1 + len(kept))
    return total / len(labels)


def compute(loss, hidden_states, item_embeddings, labels, negatives, log_q, bias=None, divisor=None):
    inputs = (hidden_states, item_embeddings, labels, negatives)
    if loss == "sampled_softmax":
        return sampled_softmax_loss(*inputs, log_q, bias, divisor)
    if loss == "gbce":
        return gbce_loss(*inputs, 0.75, N_ITEMS, bias, divisor)
    return {"bce": bce_loss, "bpr": bpr_loss}[loss](*inputs, bias, divisor)


LOSSES = ["sampled_softmax", "bce", "gbce", "bpr"]


@pytest.mark.parametrize("at_once", [1, 40, 2**20])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_equals_its_definition_and_its_gradients(monkeypatch, loss, shared, with_bias, at_once):
    # 40 at once: 8 positions of 5 shared negatives.
    monkeypatch.setattr(sampled_losses, "_SCORES_AT_ONCE", at_once)
    monkeypatch.setattr(sampled_losses, "_GATHERED_AT_ONCE", at_once * 9)
    hidden_states, item_embeddings, bias, labels, negatives, log_q = example(shared=shared)
    inputs = [hidden_states, item_embeddings, *([bias] if with_bias else [])]
    arguments = (hidden_states, item_embeddings, labels, negatives, log_q, bias if with_bias else None)
    expected = by_definition(loss, *arguments)
    expected_gradients = torch.autograd.grad(3 * expected, inputs)
    value = compute(loss, *arguments)
    torch.testing.assert_close(value, expected)
    for gradient, expected_gradient in zip(torch.autograd.grad(3 * value, inputs), expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_divides_by_the_number_that_trainer_gives(loss, shared):
    hidden_states, item_embeddings, _, labels, negatives, log_q = example(shared=shared)
    arguments = (hidden_states, item_embeddings, labels, negatives, log_q)
    mean = compute(loss, *arguments)
    torch.testing.assert_close(compute(loss, *arguments, divisor=46), mean / 2)
    torch.testing.assert_close(compute(loss, *arguments, divisor=torch.tensor(46)), mean / 2)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_extreme_scores_stay_finite(loss, shared):
    hidden_states = torch.full((2, 1), 100.0, requires_grad=True)
    item_embeddings = torch.tensor([[0.0], [-100.0], [100.0]], requires_grad=True)
    negatives = torch.tensor([2]) if shared else torch.tensor([[2], [1]])
    value = compute(
        loss, hidden_states, item_embeddings, torch.tensor([1, 2]), negatives, torch.zeros(negatives.shape)
    )
    value.backward()
    assert torch.isfinite(value)
    assert value > 1000
    assert torch.isfinite(hidden_states.grad).all()
    assert torch.isfinite(item_embeddings.grad).all()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_negatives_that_are_all_the_right_item(loss, shared):
    # The right item alone: 0 for those that compare; those that judge it by itself see a score of 1 - log(2), and
    # 1 + log(beta / 2).
    hidden_states, item_embeddings = torch.ones(1, 1, requires_grad=True), torch.tensor([[0.0], [1.0], [5.0]])
    negatives = torch.tensor([1, 1]) if shared else torch.tensor([[1, 1]])
    value = compute(loss, hidden_states, item_embeddings, torch.tensor([1]), negatives, torch.zeros(negatives.shape))
    value.backward()
    beta = gbce_beta(2, N_ITEMS, 0.75)
    alone = {"bce": math.log(1 + 2 * math.exp(-1)), "gbce": beta * math.log(1 + 2 / beta * math.exp(-1))}
    expected = alone.get(loss, 0.0)
    assert value.item() == pytest.approx(expected)
    assert torch.isfinite(hidden_states.grad).all()


@pytest.mark.parametrize("n", [1, 7])
def test_a_model_that_knows_nothing_weighs_the_right_item_as_all_its_negatives(n):
    scores = torch.zeros(1 + n, requires_grad=True)
    bce_loss(torch.ones(1, 1), scores[:, None], torch.tensor([0]), torch.arange(1, 1 + n)[None]).backward()
    assert -scores.grad[0].item() == pytest.approx(scores.grad[1:].sum().item())


def test_gbce_by_hand():
    assert gbce_beta(n_negatives=5, n_items=101, t=0.0) == 1.0
    assert gbce_beta(n_negatives=5, n_items=101, t=1.0) == pytest.approx(0.05)
    assert gbce_beta(n_negatives=100, n_items=101, t=0.6) == pytest.approx(1.0)
    hidden_states, item_embeddings, bias, labels, negatives, _ = example()
    arguments = (hidden_states, item_embeddings, labels, negatives)
    assert torch.equal(gbce_loss(*arguments, 0.0, N_ITEMS, bias), bce_loss(*arguments, bias))


@pytest.mark.parametrize("shared", [False, True])
def test_the_corrected_softmax_approaches_the_full_one(shared):
    """Drawn from a skewed law, with many negatives, its gradient is on average the full softmax's."""
    generator = torch.Generator().manual_seed(1)
    hidden_states = torch.randn(4, 6, generator=generator)
    item_embeddings = torch.randn(V, 6, generator=generator, requires_grad=True)
    labels = torch.tensor([1, 7, 7, 30])
    scores = (hidden_states @ item_embeddings.T)[:, 1:]
    (full,) = torch.autograd.grad(F.cross_entropy(scores, labels - 1), item_embeddings)
    law = torch.arange(1.0, V) ** 0.7

    def error(n, corrected=True, repeats=60):
        mean = torch.zeros_like(full)
        for _ in range(repeats):
            if shared:
                q = law / law.sum()
                drawn = torch.multinomial(q, n, replacement=True, generator=generator)
                log_q = q[drawn].log()
            else:
                # Never the right item.
                q = law.repeat(4, 1).scatter(1, labels[:, None] - 1, 0.0)
                q = q / q.sum(dim=1, keepdim=True)
                drawn = torch.multinomial(q, n, replacement=True, generator=generator)
                log_q = q.gather(1, drawn).log()
            log_q = log_q if corrected else torch.full_like(log_q, -math.log(N_ITEMS))
            loss = sampled_softmax_loss(hidden_states, item_embeddings, labels, drawn + 1, log_q)
            mean += torch.autograd.grad(loss, item_embeddings)[0] / repeats
        return ((mean - full).norm() / full.norm()).item()

    few, many, uncorrected = error(4), error(4000), error(4000, corrected=False)
    assert many < 0.03 < 0.1 < few
    assert uncorrected > 5 * many


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_bfloat16_autocast_stays_near_float32(loss, shared):
    hidden_states, item_embeddings, bias, labels, negatives, log_q = example(shared=shared, dtype=torch.float32)
    expected = compute(loss, hidden_states, item_embeddings, labels, negatives, log_q, bias)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = compute(loss, hidden_states.bfloat16(), item_embeddings, labels, negatives, log_q, bias)
    value.backward()
    assert value.dtype == torch.float32
    assert hidden_states.grad.dtype == item_embeddings.grad.dtype == torch.float32
    torch.testing.assert_close(value, expected, rtol=2e-2, atol=2e-2)


def test_wrong_shapes():
    hidden_states, item_embeddings, _, labels, negatives, log_q = example()
    with pytest.raises(ValueError, match="every label is -100"):
        bce_loss(hidden_states[:0], item_embeddings, labels[:0], negatives[:0])
    with pytest.raises(ValueError, match=r"`negatives` must have the shape \(n,\).*\(23, n\).*got \(22, 5\)"):
        bce_loss(hidden_states, item_embeddings, labels, negatives[:22])
    with pytest.raises(
        ValueError, match=r"`negatives_log_q` must have the shape of `negatives`, \(23, 5\), got \(5,\)"
    ):
        sampled_softmax_loss(hidden_states, item_embeddings, labels, negatives, log_q[0])


def test_gbce_as_published_by_hand():
    # Scores: right 1 at both positions; negatives 0 and 2 at the first, -1 and 0.5 at the second, each its own.
    hidden_states = torch.tensor([[1.0], [1.0]])
    items = torch.tensor([[0.0], [1.0], [0.0], [2.0], [-1.0], [0.5]])
    labels, negatives = torch.tensor([1, 1]), torch.tensor([[2, 3], [4, 5]])
    # alpha = 2 / 4, beta = .5 (.75 (1 - 2) + 2) = .625.
    right = 0.625 * math.log(1 + math.exp(-1))
    wrong = [[0.0, 2.0], [-1.0, 0.5]]
    expected = sum(right + sum(math.log(1 + math.exp(score)) for score in scores) for scores in wrong) / 3 / 2
    found = gbce_loss(hidden_states, items, labels, negatives, t=0.75, n_items=5, constant_bias=False)
    assert found.item() == pytest.approx(expected)
    # With the constant, log(.625 / 2) is added to all scores.
    shift = math.log(0.625 / 2)
    right = 0.625 * math.log(1 + math.exp(-1 - shift))
    expected = sum(right + sum(math.log(1 + math.exp(score + shift)) for score in scores) for scores in wrong) / 3 / 2
    found = gbce_loss(hidden_states, items, labels, negatives, t=0.75, n_items=5)
    assert found.item() == pytest.approx(expected)
