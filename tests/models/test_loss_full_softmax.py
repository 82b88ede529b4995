import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from hf_seqrec.models import loss_full_softmax as losses
from hf_seqrec.models.loss_full_softmax import full_softmax_loss


def naive_loss(hidden_states, item_embeddings, labels, bias=None, weights=None, label_smoothing=0.0):
    scores = hidden_states @ item_embeddings[1:].T
    if bias is not None:
        scores = scores + bias[1:]
    losses = F.cross_entropy(scores, labels - 1, reduction="none", label_smoothing=label_smoothing)
    return losses.mean() if weights is None else (losses * weights).sum() / weights.sum()


def example(m=37, v=101, d=24, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    hidden_states = torch.randn(m, d, generator=generator, dtype=dtype, requires_grad=True)
    item_embeddings = torch.randn(v, d, generator=generator, dtype=dtype, requires_grad=True)
    bias = torch.randn(v, generator=generator, dtype=dtype, requires_grad=True)
    labels = torch.randint(1, v, (m,), generator=generator)
    return hidden_states, item_embeddings, labels, bias


@pytest.fixture(params=["whole", "chunked"], autouse=True)
def catalog(request, monkeypatch):
    """Compute each loss in both ways, whatever the size of its catalog."""
    monkeypatch.setattr(losses, "_LARGEST_WHOLE_CATALOG", 2**30 if request.param == "whole" else 0)
    return request.param


@pytest.mark.parametrize(
    ("scores_at_once", "positions_at_once"),
    # Of the whole catalog 101 scores are one position, 500 are four with a shorter last chunk; in chunks with seven
    # positions they are 14 items and 71; then everything at once.
    [(101, 7), (500, 7), (2**20, 512)],
)
@pytest.mark.parametrize("label_smoothing", [0.0, 0.3])
@pytest.mark.parametrize("with_weights", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_equals_the_naive_cross_entropy_and_its_gradients(
    monkeypatch, scores_at_once, positions_at_once, label_smoothing, with_weights, with_bias
):
    monkeypatch.setattr(losses, "_scores_at_once", lambda device: scores_at_once)
    monkeypatch.setattr(losses, "_POSITIONS_AT_ONCE", positions_at_once)
    monkeypatch.setattr(losses, "_FEWEST_POSITIONS", 1)
    hidden_states, item_embeddings, labels, bias = example()
    inputs = [hidden_states, item_embeddings, *([bias] if with_bias else [])]
    weights = torch.linspace(0, 2, len(labels)) if with_weights else None
    expected = naive_loss(
        hidden_states, item_embeddings, labels, bias if with_bias else None, weights, label_smoothing
    )
    expected_gradients = torch.autograd.grad(3 * expected, inputs)

    loss = full_softmax_loss(
        hidden_states,
        item_embeddings,
        labels,
        bias if with_bias else None,
        label_smoothing=label_smoothing,
        weights=weights,
    )
    gradients = torch.autograd.grad(3 * loss, inputs)

    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-6)


def test_forms_only_the_gradients_that_are_asked_for():
    hidden_states, item_embeddings, labels, bias = example()
    expected = torch.autograd.grad(naive_loss(hidden_states, item_embeddings, labels, bias), bias)
    loss = full_softmax_loss(hidden_states.detach(), item_embeddings.detach(), labels, bias)
    torch.testing.assert_close(torch.autograd.grad(loss, bias), expected, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(full_softmax_loss(hidden_states, item_embeddings, labels, bias), loss)


class _LargestTensor(TorchDispatchMode):
    """Note the most numbers that any operation returned."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        returned = func(*args, **(kwargs or {}))
        if isinstance(returned, torch.Tensor):
            self.numbers = max(self.numbers, returned.numel())
        return returned


def test_the_scores_of_all_positions_never_exist(monkeypatch):
    # 512 positions, 501 rows: 256,512 scores. A chunk of 128 positions, or of items, has a quarter of them.
    monkeypatch.setattr(losses, "_scores_at_once", lambda device: 128 * 501)
    hidden_states, item_embeddings, labels, _ = example(m=512, v=501, d=4)
    with _LargestTensor() as largest:
        full_softmax_loss(hidden_states, item_embeddings, labels).backward()
    assert largest.numbers <= 128 * 501


def test_divides_by_the_number_that_trainer_gives():
    hidden_states, item_embeddings, labels, _ = example()
    mean = full_softmax_loss(hidden_states, item_embeddings, labels)
    torch.testing.assert_close(full_softmax_loss(hidden_states, item_embeddings, labels, None, 74), mean / 2)
    torch.testing.assert_close(
        full_softmax_loss(hidden_states, item_embeddings, labels, None, torch.tensor(74)), mean / 2
    )


def test_is_exact_where_the_right_item_is_hopeless():
    # The right item's probability underflows to 0 in float32; its loss must stay finite: 200 - 0.
    item_embeddings = torch.tensor([[0.0], [200.0], [0.0]])
    loss = full_softmax_loss(torch.ones(2, 1), item_embeddings, torch.tensor([2, 1]))
    assert loss.item() == pytest.approx(100.0)


def test_is_exact_where_an_item_is_far_above_those_before_it(monkeypatch):
    # One item a chunk, and exp(200) is more than float32 holds. The second position, which scores all items alike,
    # must not change for the first.
    monkeypatch.setattr(losses, "_scores_at_once", lambda device: 2)
    hidden_states = torch.tensor([[1.0], [0.0]], requires_grad=True)
    item_embeddings = torch.tensor([[0.0], [0.0], [200.0], [-100.0]], requires_grad=True)
    inputs, labels = (hidden_states, item_embeddings), torch.tensor([1, 3])
    expected = naive_loss(*inputs, labels)
    loss = full_softmax_loss(*inputs, labels)
    torch.testing.assert_close(loss, expected)
    for gradient, expected_gradient in zip(
        torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, inputs), strict=True
    ):
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-6)


def test_padding_row_gets_no_probability_and_no_gradient():
    # Two items of equal score, and a padding row that would win: each item has probability 1/2.
    item_embeddings = torch.tensor([[9.0], [1.0], [1.0]], requires_grad=True)
    loss = full_softmax_loss(torch.ones(1, 1), item_embeddings, torch.tensor([1]))
    loss.backward()
    assert loss.item() == pytest.approx(0.6931472)
    torch.testing.assert_close(item_embeddings.grad, torch.tensor([[0.0], [-0.5], [0.5]]))


def test_bfloat16_autocast_stays_near_float32():
    hidden_states, item_embeddings, labels, _ = example(d=16)
    expected = naive_loss(hidden_states, item_embeddings, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = full_softmax_loss(hidden_states, item_embeddings, labels)
    loss.backward()
    assert loss.dtype == torch.float32
    assert hidden_states.grad.dtype == item_embeddings.grad.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=2e-2, atol=0)


def test_no_label_is_an_error():
    with pytest.raises(ValueError, match="every label is -100"):
        full_softmax_loss(torch.ones(0, 4), torch.ones(3, 4), torch.zeros(0, dtype=torch.long))


def test_smoothing_and_weights_that_cannot_be_are_errors():
    inputs = torch.ones(2, 4), torch.ones(3, 4), torch.ones(2, dtype=torch.long)
    with pytest.raises(ValueError, match=r"`label_smoothing` must be in \[0, 1\], got 1.5"):
        full_softmax_loss(*inputs, label_smoothing=1.5)
    with pytest.raises(ValueError, match=r"each of the 2 labelled positions, got shape \(3,\)"):
        full_softmax_loss(*inputs, weights=torch.ones(3))
