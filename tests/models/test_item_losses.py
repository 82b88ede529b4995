"""Every model learns with every loss; the models get it from `config.item_loss`, the batches from the collators."""

import pytest
import torch
from transformers import AutoModel, set_seed

import hf_seqrec
from hf_seqrec.data.leave_one_out import leave_one_out
from hf_seqrec.data.objectives import collators_for
from hf_seqrec.data.training_negatives import NegativesCollator
from hf_seqrec.models import loss_full_softmax as losses
from hf_seqrec.models.loss_sampled import bce_loss, bpr_loss, gbce_loss, sampled_softmax_loss
from tests.helpers import small_model, walks
from tests.models.test_contract import config_for

N_ITEMS = 12
HISTORIES = torch.tensor([[3, 4, 5, 6], [7, 8, 0, 0]])
LABELS = torch.tensor([[4, -100, 6, 7], [8, 9, -100, -100]])


@pytest.mark.parametrize(
    ("loss", "negatives", "n"),
    [
        ("full_softmax", None, 0),
        ("sampled_softmax", "popularity", 4),
        ("bce", "uniform", 1),
        ("gbce", "mixed", 2),
        ("bpr", "in_batch", 4),
    ],
)
@pytest.mark.parametrize("model_type", hf_seqrec.MODEL_TYPES)
def test_every_model_learns_with_every_loss(model_type, loss, negatives, n):
    train = leave_one_out(walks(n_users=24, n_items=N_ITEMS)).train
    set_seed(0)
    model = AutoModel.from_config(config_for(model_type, N_ITEMS, hidden_size=16, item_loss=loss, gbce_t=0.25))
    collators = collators_for(model.config, max_length=12)
    collate = collators.training
    if negatives is not None:
        options = {"item_counts": train.item_counts(), "log_q": loss == "sampled_softmax"}
        collate = NegativesCollator(collate, N_ITEMS, n, negatives, **options)
    inputs = collators.training(train.__getitems__(range(24)))

    def unsampled_loss():
        model.eval()
        with torch.no_grad():
            loss = model(**inputs).loss.item()
        model.train()
        return loss

    before = unsampled_loss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for epoch in range(150):
        train.set_epoch(epoch)
        optimizer.zero_grad()
        model(**collate(train.__getitems__(range(24)))).loss.backward()
        optimizer.step()
        if epoch % 10 == 9 and unsampled_loss() < before - 0.2:
            return
    pytest.fail(f"The full softmax's loss is {unsampled_loss():.2f} after training, {before:.2f} before.")


def expected_loss(model, loss, negatives, log_q):
    states = model(HISTORIES, labels=LABELS).last_hidden_state[LABELS != -100]
    items, labels = model.item_embeddings.weight, LABELS[LABELS != -100]
    negatives = negatives if negatives.dim() == 1 else negatives[LABELS != -100]
    log_q = log_q if log_q.dim() == 1 else log_q[LABELS != -100]
    if loss == "sampled_softmax":
        return sampled_softmax_loss(states, items, labels, negatives, log_q)
    if loss == "gbce":
        return gbce_loss(states, items, labels, negatives, 0.75, N_ITEMS)
    return {"bce": bce_loss, "bpr": bpr_loss}[loss](states, items, labels, negatives)


def example(shared):
    generator = torch.Generator().manual_seed(0)
    negatives = torch.randint(1, N_ITEMS + 1, (3,) if shared else (2, 4, 3), generator=generator)
    return negatives, torch.rand(negatives.shape, generator=generator).log()


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("loss", ["sampled_softmax", "bce", "gbce", "bpr"])
def test_negatives_reach_the_loss_in_either_layout(loss, shared):
    model = small_model(N_ITEMS + 1, item_loss=loss).eval()
    negatives, log_q = example(shared)
    right = model(HISTORIES, labels=LABELS, negatives=negatives, negatives_log_q=log_q).loss
    torch.testing.assert_close(right, expected_loss(model, loss, negatives, log_q))
    # The same histories padded on the left.
    order = torch.tensor([[0, 1, 2, 3], [2, 3, 0, 1]])
    if not shared:
        places = order[:, :, None].expand(2, 4, 3)
        negatives, log_q = negatives.gather(1, places), log_q.gather(1, places)
    left = {"negatives": negatives, "negatives_log_q": log_q}
    left_loss = model(HISTORIES.gather(1, order), labels=LABELS.gather(1, order), **left).loss
    torch.testing.assert_close(left_loss, right)


@pytest.mark.slow
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("loss", ["sampled_softmax", "bce"])
def test_compiles(loss, shared):
    torch._dynamo.reset()
    model = small_model(N_ITEMS + 1, item_loss=loss).eval()
    compiled = torch.compile(model, backend="aot_eager")
    negatives, log_q = example(shared)
    gradients = []
    for forward in (model, compiled):
        model.zero_grad()
        forward(HISTORIES, labels=LABELS, negatives=negatives, negatives_log_q=log_q).loss.backward()
        gradients.append(model.item_embeddings.weight.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_large_catalog_compiles(monkeypatch):
    monkeypatch.setattr(losses, "_LARGEST_WHOLE_CATALOG", 0)
    torch._dynamo.reset()
    model = small_model(N_ITEMS + 1).eval()
    compiled = torch.compile(model, backend="aot_eager")
    gradients = []
    for forward in (model, compiled):
        model.zero_grad()
        forward(HISTORIES, labels=LABELS).loss.backward()
        gradients.append(model.item_embeddings.weight.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-6)


def test_without_negatives_an_evaluation_is_the_full_softmax():
    model = small_model(N_ITEMS + 1, item_loss="bce").eval()
    loss = model(HISTORIES, labels=LABELS).loss
    model.config.item_loss = "full_softmax"
    assert torch.equal(model(HISTORIES, labels=LABELS).loss, loss)


def test_wrong_negatives():
    negatives, log_q = example(shared=False)
    model = small_model(N_ITEMS + 1, item_loss="bce").train()
    with pytest.raises(ValueError, match=r"`negatives` must be given to train with `config.item_loss='bce'`"):
        model(HISTORIES, labels=LABELS)
    model.config.item_loss = "sampled_softmax"
    with pytest.raises(ValueError, match="`negatives_log_q` must come with `negatives`"):
        model(HISTORIES, labels=LABELS, negatives=negatives)
    model.config.item_loss = "full_softmax"
    with pytest.raises(ValueError, match=r"`negatives` must be left out.*got shape \(2, 4, 3\)"):
        model(HISTORIES, labels=LABELS, negatives=negatives, negatives_log_q=log_q)


def test_a_checkpoint_says_what_it_was_trained_with(tmp_path):
    small_model(N_ITEMS + 1, item_loss="gbce", num_negatives=5, gbce_t=0.5).save_pretrained(tmp_path)
    config = AutoModel.from_pretrained(tmp_path).config
    assert (config.item_loss, config.num_negatives, config.gbce_t) == ("gbce", 5, 0.5)


def test_fields_out_of_range():
    with pytest.raises(ValueError, match=r"`item_loss` must be one of full_softmax, .*, bpr, got 'hinge'"):
        config_for("sasrec", item_loss="hinge")
    with pytest.raises(ValueError, match=r"`gbce_t` must be in \[0, 1\], got 1.5"):
        config_for("sasrec", gbce_t=1.5)
