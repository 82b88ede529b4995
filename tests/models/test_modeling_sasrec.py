import pytest
import torch
import torch.nn.functional as F
from transformers import set_seed

from hf_seqrec import SASRec, SASRecConfig
from tests.models.reference_outputs import assert_answers_as_reference, numbered_weights, reference_cases

INPUT_IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
LAST = {"position_order": "last", "attend_to_padding": True}


def make(seed=0, **fields):
    model = SASRec(SASRecConfig(**{"vocab_size": 11, "hidden_size": 8, "max_position_embeddings": 12} | fields)).eval()
    numbered_weights(model, seed)
    return model


def layer_norm(module, x):
    return F.layer_norm(x, x.shape[-1:], module.weight, module.bias, eps=1e-8)


def attention_by_the_book(attention, asking, answering):
    """One head, one history `(l, d)`."""
    query, key, value = attention.q_proj(asking), attention.k_proj(answering), attention.v_proj(answering)
    rows = []
    for t in range(len(asking)):
        weights = torch.softmax(key[: t + 1] @ query[t] / asking.shape[1] ** 0.5, dim=0)
        rows.append(weights @ value[: t + 1])
    return attention.out_proj(torch.stack(rows))


def sasrec_by_the_book(model, input_ids):
    x = model.item_embeddings.weight[input_ids] * 8**0.5 + model.position_embeddings.weight[: len(input_ids)]
    for layer in model.layers:
        query = layer_norm(layer.attention_layer_norm, x)
        y = layer_norm(layer.feed_forward_layer_norm, query + attention_by_the_book(layer.attention, query, x))
        x = y + layer.out_proj(torch.relu(layer.in_proj(y)))
    return layer_norm(model.layer_norm, x)


@torch.no_grad()
def test_equals_the_equations():
    model = make().double()
    expected = sasrec_by_the_book(model, INPUT_IDS[0])
    torch.testing.assert_close(model(INPUT_IDS).last_hidden_state[0], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(**reference_cases("sasrec"))
def test_agrees_with_pmixer(case):
    """
    The class of pmixer's code, built as it stands with 23 items, `maxlen=8` and our weights: `pos_emb` is our
    `position_embeddings` behind a row of zeros, `in_proj_weight` our three matrices one below the other, the two
    convolutions of width 1 our `in_proj` and `out_proj`; the bias of its keys was filled with random numbers, which
    change nothing. Then its `predict` for all items on histories padded on the left with 0.

    `query` is the code of April 2025 (commit 9f6a02b), `post` and `pre` that of 2026, without and with `norm_first`.
    `full` histories have 8 items and are asked of our default; `left-padded` ones have 8, 1 and 5, and are asked with
    `position_order="last"` and `attend_to_padding`. Largest difference measured: 7.2e-7.
    """
    assert_answers_as_reference(case)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@torch.no_grad()
def test_one_position_stands_for_all_padding(implementation):
    """The padding as pmixer's code has it, written out, against the one position that we weigh."""
    model = make(normalization="post", max_position_embeddings=8, **LAST)
    model.set_attn_implementation(implementation)
    x = torch.zeros(8, 8)
    history = INPUT_IDS[0, :5]
    x[3:] = model.item_embeddings.weight[history] * 8**0.5 + model.position_embeddings.weight[3:]
    for layer in model.layers:
        y = layer_norm(layer.attention_layer_norm, x + attention_by_the_book(layer.attention, x, x))
        x = layer_norm(layer.feed_forward_layer_norm, y + layer.out_proj(torch.relu(layer.in_proj(y))))
    expected = layer_norm(model.layer_norm, x)[3:]
    torch.testing.assert_close(model(history[None]).last_hidden_state[0], expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_last_item_has_the_last_position():
    model = make(position_order="last")
    scores = model(INPUT_IDS).logits
    model.position_embeddings.weight[:4] = 7.0
    # Eight items take the last eight of twelve positions.
    assert torch.equal(model(INPUT_IDS).logits, scores)
    model.position_embeddings.weight[4] += 1.0
    assert not torch.equal(model(INPUT_IDS).logits, scores)


@pytest.mark.parametrize("fields", [{}, {"position_order": "last"}, LAST])
def test_padding_and_training_with_every_switch(fields):
    model = make(**fields)
    short, padded = INPUT_IDS[:, :5], F.pad(INPUT_IDS[:, :5], (4, 3))
    torch.testing.assert_close(model(short).logits, model(padded).logits, rtol=1e-5, atol=1e-5)
    labels = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = model(INPUT_IDS, labels=labels).loss
    model.train()
    model(INPUT_IDS, labels=labels).loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    torch.testing.assert_close(low, model.eval()(INPUT_IDS, labels=labels).loss, rtol=3e-2, atol=0)


def test_eager_and_sdpa_agree_and_eager_shows_its_weights():
    model = make(num_attention_heads=2)
    expected = model(INPUT_IDS)
    assert model.config._attn_implementation == "sdpa"
    model.set_attn_implementation("eager")
    output = model(INPUT_IDS, output_attentions=True)
    torch.testing.assert_close(output.logits, expected.logits, rtol=1e-5, atol=1e-5)
    assert [weights.shape for weights in output.attentions] == [(1, 2, 8, 8)] * 2
    assert not output.attentions[0].triu(1).any()
    torch.testing.assert_close(output.attentions[0].sum(-1), torch.ones(1, 2, 8))


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_dropout_is_random_in_training_only(implementation):
    model = make(attention_probs_dropout_prob=0.5, hidden_dropout_prob=0.0)
    model.set_attn_implementation(implementation)
    assert torch.equal(model(INPUT_IDS).logits, model(INPUT_IDS).logits)
    model.train()
    assert not torch.equal(model(INPUT_IDS).logits, model(INPUT_IDS).logits)


def test_no_state_where_positions_move():
    with pytest.raises(ValueError, match='`position_order="last"` every new item moves'):
        make(position_order="last")(INPUT_IDS, use_cache=True)


def test_a_state_that_outgrows_the_positions():
    model = make(max_position_embeddings=9)
    cache = model(INPUT_IDS, use_cache=True).cache
    model(INPUT_IDS[:, :1], cache=cache)
    with pytest.raises(ValueError, match="a history of 10 items, but this model has 9 positions"):
        model(INPUT_IDS[:, :1], cache=cache)
    # `recommend` keeps the most recent without a state.
    rows, _ = model.recommend(INPUT_IDS.repeat(1, 2), top_k=3)
    assert rows.shape == (1, 3)


def test_compiles_into_one_graph():
    model = make()
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(INPUT_IDS).logits, model(INPUT_IDS).logits)


def test_loads_as_it_was_saved_with_every_switch(tmp_path):
    set_seed(0)
    model = make(normalization="pre", num_attention_heads=4, **LAST)
    model.save_pretrained(tmp_path)
    loaded = SASRec.from_pretrained(tmp_path)
    assert loaded.config.attend_to_padding
    assert torch.equal(loaded(INPUT_IDS).logits, model(INPUT_IDS).logits)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_attention_heads": 3}, "must divide `hidden_size`, got 3 heads and a width of 64"),
        ({"num_attention_heads": 0}, "must divide `hidden_size`, got 0 heads"),
        ({"attention_probs_dropout_prob": 1.0}, r"`attention_probs_dropout_prob` must be in \[0, 1\), got 1.0"),
        ({"normalization": "rms"}, "normalization"),
        ({"position_order": "middle"}, "position_order"),
        ({"max_position_embeddings": None}, "max_position_embeddings"),
        ({"attend_to_padding": True}, '`attend_to_padding=True` needs `position_order="last"`'),
    ],
)
def test_configurations_that_cannot_work(fields, message):
    # huggingface_hub has an exception of its own for a wrong type.
    with pytest.raises(Exception, match=message):
        SASRecConfig(**fields)
