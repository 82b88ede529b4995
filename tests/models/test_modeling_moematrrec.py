import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel, set_seed

from hf_seqrec import MoEMaTrRec, MoEMaTrRecConfig
from hf_seqrec.models.history_context import HistoryContext
from hf_seqrec.models.modeling_moematrrec import running_mean
from tests.models.by_the_book import attention_by_the_book, mamba_by_the_book
from tests.models.reference_outputs import assert_answers_as_reference, reference_cases

HISTORIES = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 0, 0, 0]])
FIELDS = {
    "vocab_size": 11,
    "hidden_size": 8,
    "state_size": 3,
    "num_attention_heads": 2,
    "max_position_embeddings": 8,
}


def small(**fields):
    set_seed(0)
    model = MoEMaTrRec(MoEMaTrRecConfig(**FIELDS | fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize(**reference_cases("moematrrec"))
def test_answers_as_the_authors_code(case):
    """
    Its class `SASmambaRec` ran as it is, with the Mamba block of mamba_ssm itself, whose kernel was replaced by
    mamba_ssm's own definition in torch (`selective_scan_ref`). Its keys had a bias, which ours leave out.

    `causal=False`: two of the three histories are shorter than the 12 positions to which it pads on the left; row 0 of
    the embedding, which its initialisation does not leave at zero, counts in them. Causal: it was given each prefix of
    a history by itself, without padding; at its last position it has seen what the causal model has seen there.
    """
    assert_answers_as_reference(case)


def test_the_causal_model_is_another():
    case = reference_cases("moematrrec")["argvalues"][0]
    with pytest.raises(AssertionError, match="not close"):
        assert_answers_as_reference(case, causal=True)


@pytest.mark.parametrize("gate", ["sequence", "token"])
@torch.no_grad()
def test_equals_the_equations(gate):
    model = small(gate=gate, num_hidden_layers=2).double()
    x = model.item_embeddings.weight[HISTORIES[0]] * 8**0.5 + model.position_embeddings.weight[:6]
    for layer in model.layers:
        by_attention = layer.attention_layer_norm(attention_by_the_book(layer.attention, x) + x)
        by_mamba = mamba_by_the_book(layer.mixer, x)
        y = torch.zeros_like(x)
        for t in range(6):
            decides = x[: t + 1].mean(dim=0) if gate == "sequence" else x[t]
            weight = torch.sigmoid(layer.gate_proj(decides))
            y[t] = weight * by_mamba[t] + (1 - weight) * by_attention[t]
        network = layer.feed_forward
        x = network.layer_norm(network.out_proj(F.relu(network.in_proj(y))) + y)
    torch.testing.assert_close(model(HISTORIES).last_hidden_state[0], x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("gate", ["sequence", "token"])
@pytest.mark.parametrize("attn_implementation", ["eager", "sdpa"])
def test_state_goes_on(gate, attn_implementation):
    model = small(gate=gate)
    model.set_attn_implementation(attn_implementation)
    cache = model(HISTORIES, use_cache=True).cache
    later = model(torch.tensor([[7, 0], [8, 10]]), cache=cache).logits
    torch.testing.assert_close(model(torch.tensor([[3, 1, 4, 1, 5, 9, 7]])).logits[0], later[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(torch.tensor([[2, 6, 5, 8, 10]])).logits[0], later[1], rtol=1e-4, atol=1e-5)


def test_rows_of_a_state_can_be_picked():
    model = small()
    cache = model(HISTORIES, use_cache=True).cache
    cache.batch_select_indices(torch.tensor([1, 1, 0]))
    later = model(torch.tensor([[8], [10], [7]]), cache=cache).logits
    for row, history in enumerate(([2, 6, 5, 8], [2, 6, 5, 10], [3, 1, 4, 1, 5, 9, 7])):
        torch.testing.assert_close(model(torch.tensor([history])).logits[0], later[row], rtol=1e-4, atol=1e-5)


def test_a_state_can_be_emptied():
    model = small()
    cache = model(HISTORIES, use_cache=True).cache
    cache.reset()
    torch.testing.assert_close(model(HISTORIES, cache=cache).logits, model(HISTORIES).logits)


def test_positions_end():
    model = small()
    cache = model(HISTORIES, use_cache=True).cache
    with pytest.raises(ValueError, match="a history of 9 items, but this model has 8 positions"):
        model(torch.tensor([[7, 7, 7], [7, 7, 7]]), cache=cache)


def test_attention_weights_on_request():
    model = small()
    model.set_attn_implementation("eager")
    (weights,) = model(HISTORIES, output_attentions=True).attentions
    assert weights.shape == (2, 2, 6, 6)
    assert not weights.triu(1).any()


class TestRunningMean:
    STATES = torch.tensor([[[2.0], [4.0], [9.0]], [[5.0], [70.0], [70.0]], [[70.0], [70.0], [70.0]]])
    MASK = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0]])

    def test_by_hand(self):
        means, state = running_mean(self.STATES, self.MASK)
        assert means[0, :, 0].tolist() == [2, 3, 5]
        assert means[1, 0, 0] == 5
        # Sums, and of how many.
        assert state.tolist() == [[15, 3], [5, 1], [0, 0]]

    def test_goes_on(self):
        _, state = running_mean(self.STATES, self.MASK)
        means, _ = running_mean(torch.tensor([[[1.0]], [[7.0]], [[4.0]]]), None, state)
        assert means[:, 0, 0].tolist() == [4, 6, 4]

    def test_nothing_seen_is_not_nan(self):
        means, _ = running_mean(self.STATES, self.MASK)
        assert torch.isfinite(means).all()

    def test_half_precision_counts_on(self):
        # In bfloat16, 256 + 1 = 256.
        means, _ = running_mean(torch.ones(1, 1000, 1, dtype=torch.bfloat16))
        assert (means == 1).all()
        assert means.dtype == torch.bfloat16


class TestAsItsCode:
    @pytest.fixture
    def model(self):
        return small(causal=False)

    def test_the_callers_padding_changes_nothing(self, model):
        batch = model(HISTORIES).logits
        torch.testing.assert_close(model(HISTORIES[1:, :3]).logits[0], batch[1])
        torch.testing.assert_close(model(torch.tensor([[0, 2, 6, 5]])).logits[0], batch[1])

    @pytest.mark.parametrize("gate", ["sequence", "token"])
    def test_sees_the_future(self, gate):
        model = small(causal=False, gate=gate)
        before, after = model(torch.tensor([[3, 1, 4], [3, 1, 5]])).last_hidden_state
        assert (before[0] - after[0]).abs().max() > 1e-4

    def test_learns_at_the_last_item_only(self, model):
        labels = torch.tensor([[-100, -100, -100, -100, -100, 2], [-100, -100, 7, -100, -100, -100]])
        model(HISTORIES, labels=labels).loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        labels[1, 0] = 6
        with pytest.raises(ValueError, match="`labels` must be -100 everywhere but at the last item"):
            model(HISTORIES, labels=labels)

    def test_carries_no_state(self, model):
        with pytest.raises(ValueError, match="a new item changes what the model makes of all items before it"):
            model(HISTORIES, use_cache=True)

    def test_is_saved_as_such(self, model, tmp_path):
        model.save_pretrained(tmp_path)
        loaded = AutoModel.from_pretrained(tmp_path)
        assert not loaded.config.causal
        assert torch.equal(loaded(HISTORIES).logits, model(HISTORIES).logits)


def test_reference_initialiser_draws_every_matrix():
    layer = MoEMaTrRec(MoEMaTrRecConfig(hidden_size=64, initializer="reference")).layers[0]
    # Xavier: variance 2 / (inputs + outputs).
    assert layer.attention.out_proj.weight.std().item() == pytest.approx((2 / 128) ** 0.5, rel=0.1)
    assert layer.mixer.A_log.std().item() == pytest.approx((2 / (128 + 32)) ** 0.5, rel=0.1)
    assert (layer.attention_layer_norm.weight == 1).all()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 64, "num_attention_heads": 7}, "`num_attention_heads` must divide `hidden_size`"),
        ({"gate": "layer"}, "gate"),
        ({"conv_kernel": -1}, "`conv_kernel` must be at least 1, got -1"),
        ({"intermediate_size": 0}, "`intermediate_size` must be at least 1, got 0"),
        ({"max_position_embeddings": None}, "max_position_embeddings"),
    ],
)
def test_configurations_that_cannot_work(fields, message):
    # A value of the wrong type is huggingface_hub's own error.
    with pytest.raises(Exception, match=message):
        MoEMaTrRecConfig(**fields)


@torch.no_grad()
def test_a_constant_gate_is_two_scalars():
    set_seed(0)
    config = MoEMaTrRecConfig(vocab_size=11, hidden_size=8, state_size=3, gate="constant", max_position_embeddings=6)
    model = MoEMaTrRec(config).eval()
    layer = model.layers[0]
    assert {name for name, _ in layer.named_parameters(recurse=False)} == {"mamba_weight", "attention_weight"}
    assert (layer.mamba_weight.item(), layer.attention_weight.item()) == (0.5, 0.5)
    assert not hasattr(layer, "gate_proj")
    layer.mamba_weight.fill_(0.7)
    layer.attention_weight.fill_(-0.2)
    x = torch.randn(1, 6, 8)
    context = HistoryContext.with_padding_as_items(x)
    attended, _ = layer.attention(x, context, x)
    expected = layer.feed_forward(0.7 * layer.mixer(x, context) - 0.2 * layer.attention_layer_norm(attended + x))
    torch.testing.assert_close(layer(x, context), expected)
    # Item by item as at once, and kept in a checkpoint.
    history = torch.tensor([[3, 1, 4, 1, 5]])
    whole = model(history).logits
    cache = model(history[:, :4], use_cache=True).cache
    torch.testing.assert_close(model(history[:, 4:], cache=cache).logits, whole, rtol=1e-4, atol=1e-5)


def test_a_constant_gate_in_a_checkpoint(tmp_path):
    model = MoEMaTrRec(MoEMaTrRecConfig(vocab_size=11, hidden_size=8, state_size=3, gate="constant")).eval()
    with torch.no_grad():
        model.layers[0].mamba_weight.fill_(0.25)
    model.save_pretrained(tmp_path)
    loaded = MoEMaTrRec.from_pretrained(tmp_path)
    assert loaded.config.gate == "constant"
    assert loaded.layers[0].mamba_weight.item() == 0.25
    assert "two learned scalars" in loaded.config.note
    assert "as published" in MoEMaTrRecConfig(vocab_size=11).note
