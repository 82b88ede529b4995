import pytest
import torch
from transformers import set_seed

from hf_seqrec import GRU4Rec, GRU4RecConfig
from tests.models.reference_outputs import assert_answers_as_reference, numbered_weights, reference_cases

INPUT_IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


def gru_by_the_book(layer, inputs):
    """Cho et al. 2014 for one sequence `(l, d)`; the reset gate acts on the product, as in cuDNN."""
    W_r, W_z, W_n = layer.gru.weight_ih_l0.chunk(3)
    U_r, U_z, U_n = layer.gru.weight_hh_l0.chunk(3)
    state, states = torch.zeros(W_r.shape[0], dtype=inputs.dtype), []
    for x in inputs:
        reset = torch.sigmoid(W_r @ x + U_r @ state)
        update = torch.sigmoid(W_z @ x + U_z @ state)
        candidate = torch.tanh(W_n @ x + reset * (U_n @ state))
        state = (1 - update) * candidate + update * state
        states.append(state)
    return torch.stack(states)


@pytest.mark.parametrize("num_hidden_layers", [1, 3])
@torch.no_grad()
def test_equals_the_equations(num_hidden_layers):
    config = GRU4RecConfig(vocab_size=11, hidden_size=8, gru_hidden_size=6, num_hidden_layers=num_hidden_layers)
    model = GRU4Rec(config).eval().double()
    numbered_weights(model, 0)
    hidden_states = model.item_embeddings.weight[INPUT_IDS[0]]
    for layer in model.layers:
        hidden_states = gru_by_the_book(layer, hidden_states)
    expected = hidden_states @ model.out_proj.weight.T + model.out_proj.bias
    torch.testing.assert_close(model(INPUT_IDS).last_hidden_state[0], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(**reference_cases("gru4rec"))
def test_agrees_with_recbole(case):
    """
    RecBole's class, built as it stands with a dataset of 23 items, given our weights by its own names: its
    `gru_layers.weight_ih_l{k}` is our `layers.{k}.gru.weight_ih_l0`, its `dense` our `out_proj`; then its
    `full_sort_predict` on right-padded histories of 9, 1 and 6 items. Largest difference measured: 0.
    """
    assert_answers_as_reference(case)


def test_state_has_a_fixed_size():
    model = GRU4Rec(GRU4RecConfig(vocab_size=11, hidden_size=8, gru_hidden_size=6, num_hidden_layers=2)).eval()

    def state_bytes(length):
        cache = model(INPUT_IDS.repeat(1, length), use_cache=True).cache
        return sum(state.nbytes for state in cache.states.values())

    assert state_bytes(1) == state_bytes(50) == 2 * 6 * 4


@torch.no_grad()
def test_a_row_without_a_new_item_keeps_its_state():
    model = GRU4Rec(GRU4RecConfig(vocab_size=11, hidden_size=8)).eval()
    input_ids = torch.tensor([[3, 1, 4], [1, 5, 9]])
    cache = model(input_ids, use_cache=True).cache
    before = cache.get(0, "hidden")
    model(torch.tensor([[2], [0]]), cache=cache, output_logits=False)
    after = cache.get(0, "hidden")
    assert not torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[1])


def test_initialises_every_layer(tmp_path):
    set_seed(0)
    model = GRU4Rec(GRU4RecConfig(vocab_size=11, hidden_size=8, gru_hidden_size=128, num_hidden_layers=2))
    for layer in model.layers:
        bound = (6 / (3 * 128 + 128)) ** 0.5
        weight = layer.gru.weight_hh_l0
        assert 0.9 * bound < weight.abs().max() <= bound
    # What a checkpoint lacks is initialised too, and not left as memory happened to be.
    state = {name: tensor for name, tensor in model.state_dict().items() if "layers.1" not in name}
    model.save_pretrained(tmp_path, state_dict=state)
    loaded, report = GRU4Rec.from_pretrained(tmp_path, output_loading_info=True)
    assert report["missing_keys"] == {"layers.1.gru.weight_hh_l0", "layers.1.gru.weight_ih_l0"}
    assert 0.9 * bound < loaded.layers[1].gru.weight_hh_l0.abs().max() <= bound
    assert torch.equal(loaded.layers[0].gru.weight_hh_l0, model.layers[0].gru.weight_hh_l0)


def test_has_no_attention_to_choose():
    with pytest.raises(ValueError, match="does not support"):
        GRU4Rec._from_config(GRU4RecConfig(vocab_size=11), attn_implementation="sdpa")


@pytest.mark.parametrize(("field", "value"), [("gru_hidden_size", 0), ("hidden_dropout_prob", -0.1)])
def test_configurations_that_cannot_work(field, value):
    with pytest.raises(ValueError, match=f"`{field}`"):
        GRU4RecConfig(**{field: value})
