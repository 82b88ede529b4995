import pytest
import torch
import torch.nn.functional as F

from hf_seqrec.models import losses
from hf_seqrec.models.losses import full_softmax_loss


def naive_loss(hidden_states, item_embeddings, labels, bias=None):
    scores = hidden_states @ item_embeddings.T
    if bias is not None:
        scores = scores + bias
    return F.cross_entropy(torch.cat([torch.full_like(scores[:, :1], -torch.inf), scores[:, 1:]], dim=1), labels)


def example(m=37, v=101, d=24, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    hidden_states = torch.randn(m, d, generator=generator, dtype=dtype, requires_grad=True)
    item_embeddings = torch.randn(v, d, generator=generator, dtype=dtype, requires_grad=True)
    bias = torch.randn(v, generator=generator, dtype=dtype, requires_grad=True)
    labels = torch.randint(1, v, (m,), generator=generator)
    return hidden_states, item_embeddings, labels, bias


@pytest.mark.parametrize("scores_at_once", [101, 500, 2**20])
@pytest.mark.parametrize("with_bias", [False, True])
def test_equals_the_naive_cross_entropy_and_its_gradients(monkeypatch, scores_at_once, with_bias):
    # 101 scores at once are one position a chunk, 500 are four with a shorter last chunk.
    monkeypatch.setattr(losses, "_SCORES_AT_ONCE", scores_at_once)
    hidden_states, item_embeddings, labels, bias = example()
    inputs = [hidden_states, item_embeddings, *([bias] if with_bias else [])]
    expected = naive_loss(hidden_states, item_embeddings, labels, bias if with_bias else None)
    expected_gradients = torch.autograd.grad(3 * expected, inputs)

    loss = full_softmax_loss(hidden_states, item_embeddings, labels, bias if with_bias else None)
    gradients = torch.autograd.grad(3 * loss, inputs)

    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    for gradient, expected_gradient in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-6)


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
    loss = full_softmax_loss(torch.ones(1, 1), item_embeddings, torch.tensor([2]))
    assert loss.item() == pytest.approx(200.0)


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
