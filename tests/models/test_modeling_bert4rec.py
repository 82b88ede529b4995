import pytest
import torch
import torch.nn.functional as F
from transformers import set_seed

from hf_seqrec import BERT4Rec, BERT4RecConfig
from tests.models.reference_outputs import assert_answers_as_reference, numbered_weights, reference_cases

N_ITEMS, MASK = 12, 13
INPUT_IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [7, 12, 0, 0, 0, 0, 0, 0]])


def make(**fields):
    vocab_size = BERT4RecConfig.vocab_size_for(N_ITEMS)
    config = BERT4RecConfig(
        **{"vocab_size": vocab_size, "hidden_size": 8, "max_position_embeddings": 12, "num_hidden_layers": 2} | fields
    )
    model = BERT4Rec(config).eval()
    numbered_weights(model, 0)
    return model


def layer_norm(module, x):
    return F.layer_norm(x, x.shape[-1:], module.weight, module.bias, eps=1e-12)


def bert4rec_by_the_book(model, input_ids):
    """One sequence of rows, masks included, to the scores of the items at each position `(l, n_items)`."""
    x = model.item_embeddings.weight[input_ids] + model.position_embeddings.weight[: len(input_ids)]
    x = layer_norm(model.layer_norm, x)
    for layer in model.layers:
        attention, feed_forward = layer.attention, layer.feed_forward
        query, key, value = attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)
        heads = [
            torch.softmax(query[:, head] @ key[:, head].T / 4**0.5, dim=1) @ value[:, head]
            for head in (slice(0, 4), slice(4, 8))
        ]
        x = layer_norm(layer.layer_norm, x + attention.out_proj(torch.cat(heads, dim=1)))
        x = layer_norm(feed_forward.layer_norm, x + feed_forward.out_proj(F.gelu(feed_forward.in_proj(x))))
    x = layer_norm(model.transform_layer_norm, F.gelu(model.transform(x)))
    return x @ model.item_embeddings.weight[1 : N_ITEMS + 1].T + model.output_bias[1:]


@torch.no_grad()
def test_equals_the_equations():
    model = make().double()
    masked = torch.tensor([[3, MASK, 4, 1, MASK]])
    expected = bert4rec_by_the_book(model, masked[0])
    logits = model(masked, output_logits=True).logits[0]
    assert torch.isneginf(logits[:, 0]).all()
    torch.testing.assert_close(logits[:, 1:], expected.float())
    labels = torch.tensor([[-100, 6, -100, -100, 2]])
    expected_loss = F.cross_entropy(expected[[1, 4]], torch.tensor([6, 2]) - 1)
    torch.testing.assert_close(model(masked, labels=labels).loss, expected_loss.float())


@torch.no_grad()
def test_the_next_item_is_asked_for_with_a_mask():
    model = make()
    for row, length in ((0, 8), (1, 2)):
        asked = torch.cat([INPUT_IDS[row, :length], torch.tensor([MASK])])
        expected = bert4rec_by_the_book(model, asked)[-1]
        torch.testing.assert_close(model(INPUT_IDS).logits[row, 1:], expected, rtol=1e-5, atol=1e-5)
    rows, scores = model.recommend(INPUT_IDS, top_k=4)
    unseen = model(INPUT_IDS).logits.scatter(1, INPUT_IDS, -torch.inf)
    assert torch.equal(rows, unseen.topk(4).indices)
    torch.testing.assert_close(scores, unseen.topk(4).values)


@torch.no_grad()
def test_the_oldest_item_makes_place_only_in_a_full_history():
    full, free = make(max_position_embeddings=8), make(max_position_embeddings=9)
    free.load_state_dict(full.state_dict() | {"position_embeddings.weight": free.position_embeddings.weight})
    for model, first in ((full, 1), (free, 0)):
        asked = torch.cat([INPUT_IDS[0, first:], torch.tensor([MASK])])
        expected = bert4rec_by_the_book(model, asked)[-1]
        torch.testing.assert_close(model(INPUT_IDS).logits[0, 1:], expected, rtol=1e-5, atol=1e-5)
        # The short history of the same batch keeps all it has.
        short = model(INPUT_IDS[1:, :2]).logits[0]
        torch.testing.assert_close(model(INPUT_IDS).logits[1], short, rtol=1e-5, atol=1e-5)
        # A history longer than all positions is cut as well, but all of it counts as seen.
        rows, _ = model.recommend(INPUT_IDS[:1].repeat(1, 2), top_k=5)
        assert not set(rows[0].tolist()) & set(INPUT_IDS[0].tolist())


@pytest.mark.parametrize(**reference_cases("bert4rec"))
def test_agrees_with_the_authors_and_with_recbole(case):
    """
    `authors`: the authors' `modeling.py` and the `get_masked_lm_output` of their `run.py`, run by TensorFlow 2.x's
    `compat.v1` with two functions that it no longer has put back, `tf.layers.dense` and `tf.contrib.layers.layer_norm`
    (moments of the last axis, epsilon 1e-12). Every variable got our weight of the same role (kernels transposed), the
    token-type embeddings 0, the bias of the keys random numbers, the output bias of the mask 0.7. Scores are the
    logits of the 23 items at the mask behind histories of 9, 1 and 6 items. Largest difference measured: 1.2e-6.

    `RecBole`: its class, built as it stands for 23 items with our weights by its names (its `output_ffn` is our
    `transform`), then its `full_sort_predict`. It appends the mask and drops the first item of every history, so each
    was given one item more in front. Largest difference measured: 4.8e-7.
    """
    assert_answers_as_reference(case)


def test_the_mask_is_nothing_to_recommend():
    model = make()
    assert (model.config.n_items, model.config.mask_row) == (N_ITEMS, MASK)
    rows, _ = model.recommend(INPUT_IDS, top_k=N_ITEMS, exclude_seen=False)
    assert sorted(rows[0].tolist()) == list(range(1, N_ITEMS + 1))
    rows, scores = model.recommend(INPUT_IDS, top_k=2, candidate_rows=torch.tensor([11, 8, 10]))
    logits = model(INPUT_IDS).logits
    assert torch.equal(rows, torch.tensor([8, 10, 11])[logits[:, [8, 10, 11]].topk(2).indices])
    torch.testing.assert_close(scores, logits.gather(1, rows))
    with pytest.raises(ValueError, match=r"`input_ids` must be catalog rows in 0\.\.12, got 0\.\.13"):
        model.recommend(torch.tensor([[3, MASK, 0]]))
    with pytest.raises(ValueError, match=r"`candidate_rows` must be catalog rows in 0\.\.12"):
        model.recommend(INPUT_IDS, candidate_rows=torch.tensor([MASK]))


def test_no_gradient_pushes_the_mask_as_an_item():
    model = make()
    labels = torch.full_like(INPUT_IDS, -100)
    labels[0, 3] = 7
    # No mask in the input: its embedding could only be reached through the softmax.
    model(INPUT_IDS, labels=labels).loss.backward()
    assert not model.item_embeddings.weight.grad[MASK].any()
    assert model.item_embeddings.weight.grad[8].any()
    assert model.output_bias.grad[0] == 0


def test_looks_both_ways():
    model = make()
    labels = torch.full_like(INPUT_IDS, -100)
    labels[0, 0] = 7
    changed = INPUT_IDS.clone()
    changed[0, 7] = 10
    before, after = (model(ids, labels=labels).last_hidden_state[0, 0] for ids in (INPUT_IDS, changed))
    assert (before - after).abs().max() > 1e-3


def test_no_state():
    with pytest.raises(ValueError, match=r"BERT4Rec looks both ways.*encode the whole history"):
        make()(INPUT_IDS, use_cache=True)
    with pytest.raises(ValueError, match="BERT4Rec looks both ways"):
        make(use_cache=True).recommend(INPUT_IDS)


def test_empty_histories():
    with pytest.raises(ValueError, match="history of user 1 of the batch is empty"):
        make()(torch.tensor([[3, 4], [0, 0]]))
    with pytest.raises(ValueError, match="history of user 0 of the batch is empty"):
        make().recommend(torch.tensor([[0, 0]]))


def test_the_item_after_a_history_is_asked_for_behind_it():
    """With the mask appended, and where the history is full without its oldest item, by hand."""
    model = make()
    history = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    assert model.config.max_position_embeddings > 9
    mask = torch.tensor([[model.config.mask_row]])
    expected = model(torch.cat([history, mask], dim=1), output_logits=True).logits[:, -1]
    torch.testing.assert_close(model(history, only_last=True).logits, expected)
    loss = torch.nn.functional.cross_entropy(expected, torch.tensor([7]))
    torch.testing.assert_close(model(history, labels=torch.tensor([7])).loss, loss)
    full = make(max_position_embeddings=8)
    expected = full(torch.cat([history[:, 1:], mask], dim=1), output_logits=True).logits[:, -1]
    torch.testing.assert_close(full(history, only_last=True).logits, expected)


def test_eager_and_sdpa_agree_and_eager_shows_its_weights():
    model = make()
    expected = model(INPUT_IDS)
    model.set_attn_implementation("eager")
    output = model(INPUT_IDS, output_attentions=True)
    torch.testing.assert_close(output.logits, expected.logits, rtol=1e-5, atol=1e-5)
    assert [weights.shape for weights in output.attentions] == [(2, 2, 9, 9)] * 2
    # Two items and the mask; the rest is padding.
    assert not output.attentions[0][1, :, :, 3:].any()


def test_starts_truncated_normal(tmp_path):
    set_seed(0)
    model = BERT4Rec(BERT4RecConfig(vocab_size=2000))
    for weight in (model.item_embeddings.weight, model.position_embeddings.weight, model.transform.weight):
        assert weight.abs().max() <= 0.04
        # A normal distribution cut off at two standard deviations has 0.88 of its spread.
        assert weight.std().item() == pytest.approx(0.88 * 0.02, rel=0.02)
    assert not model.item_embeddings.weight[0].any()
    assert not model.output_bias.any()
    # What a checkpoint has stays, what it lacks is initialised.
    numbered_weights(model, 0)
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "output_bias"}
    model.save_pretrained(tmp_path, state_dict=state)
    loaded = BERT4Rec.from_pretrained(tmp_path)
    assert torch.equal(loaded.item_embeddings.weight, model.item_embeddings.weight)
    assert not loaded.output_bias.any()


def test_compiles_into_one_graph():
    model = make()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(INPUT_IDS).logits, model(INPUT_IDS).logits)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vocab_size": 2}, "counts 2 special rows and at least one item, so it must be at least 3, got 2"),
        ({"num_attention_heads": 7}, "must divide `hidden_size`, got 7 heads and a width of 64"),
        ({"attention_probs_dropout_prob": -0.1}, "`attention_probs_dropout_prob`"),
        ({"intermediate_size": 0}, "`intermediate_size` must be at least 1, got 0"),
        ({"max_position_embeddings": 1}, "an item and the mask behind it, got 1"),
        ({"mask_probability": 0.0}, r"`mask_probability` must be in \(0, 1\), got 0.0"),
        ({"mask_probability": 1.0}, r"`mask_probability` must be in \(0, 1\), got 1.0"),
        ({"mask_last_probability": 1.5}, r"`mask_last_probability` must be in \[0, 1\], got 1.5"),
    ],
)
def test_configurations_that_cannot_work(fields, message):
    with pytest.raises(ValueError, match=message):
        BERT4RecConfig(**fields)
