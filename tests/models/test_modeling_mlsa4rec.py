import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel, set_seed

from hf_seqrec import MLSA4Rec, MLSA4RecConfig
from hf_seqrec.models.history_cache import HistoryCache
from tests.models.by_the_book import interest_attention_by_the_book, mamba_by_the_book
from tests.models.reference_outputs import assert_answers_as_reference, model_of, reference_cases

WHOLE, MODULE = reference_cases("mlsa4rec")["argvalues"]
HISTORIES = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 0, 0, 0]])
FIELDS = {"vocab_size": 11, "hidden_size": 8, "state_size": 3, "num_interests": 3, "num_attention_heads": 2}


def small(**fields):
    set_seed(0)
    model = MLSA4Rec(MLSA4RecConfig(**FIELDS, **fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


def test_answers_as_the_authors_code():
    """
    Its class ran as it is, with the Mamba block of mamba_ssm itself, whose kernel was replaced by mamba_ssm's own
    definition in torch (`selective_scan_ref`), RecBole's own `ItemToInterestAggregation`, and its `gather_indexes` in
    an otherwise empty base class. Two of the three histories are shorter than the 12 positions to which it pads; row 0
    of the embedding, which its initialisation does not leave at zero, counts in them.
    """
    assert_answers_as_reference(WHOLE)


def test_the_causal_model_is_another():
    with pytest.raises(AssertionError, match="not close"):
        assert_answers_as_reference(WHOLE, causal=True)


@torch.no_grad()
def test_the_causal_module_answers_as_the_authors_on_each_prefix():
    """
    The authors' model without Mamba layers, so their Mamba-LSA module alone, was given each prefix of a history by
    itself, with `dim=-1` instead of `dim=-2` in the softmax of its attention: its last position is then what the
    causal module must give there. (Further layers would see that its earlier positions have seen the last.) Its keys
    had a bias, which ours leave out.
    """
    model = model_of(MODULE)
    hidden_states = model(torch.tensor(MODULE["input_ids"]), output_hidden_states=True).hidden_states
    torch.testing.assert_close(hidden_states[1][0], torch.tensor(MODULE["states"]), rtol=0, atol=1e-5)


@torch.no_grad()
def test_equals_the_equations():
    model = small(num_hidden_layers=1).double()

    def mamba_layer(layer, norm, inputs):
        return norm(mamba_by_the_book(layer.mixer, inputs) + inputs)

    inputs = model.layer_norm(model.item_embeddings.weight[HISTORIES[0]])
    module = model.interest_layer
    u = mamba_layer(module, module.mixer_layer_norm, inputs)
    v = interest_attention_by_the_book(module.attention, u)
    g = module.gate_layer_norm(F.gelu(module.gate_proj(v)) * u)
    y = F.gelu(module.out_proj(torch.cat([v, g], dim=-1))) + F.gelu(module.skip_proj(inputs))
    expected = mamba_layer(model.layers[0], model.layers[0].layer_norm, module.layer_norm(y))
    torch.testing.assert_close(model(HISTORIES).last_hidden_state[0], expected, rtol=1e-9, atol=1e-9)


def test_state_has_a_fixed_size():
    model = small(num_hidden_layers=1)

    def state_bytes(length):
        cache = model(HISTORIES[:1].repeat(1, length), use_cache=True).cache
        return sum(state.nbytes for state in cache.states.values())

    # Two blocks of 16 channels with 3 inputs and 3 states each; keys and values of 3 interests, with their weights.
    assert state_bytes(1) == state_bytes(20) == 4 * (2 * 16 * (3 + 3) + 2 * 3 * (8 + 1))


class TestAsTheAuthorsCode:
    @pytest.fixture
    def model(self):
        return small(causal=False, max_position_embeddings=6)

    def test_the_callers_padding_changes_nothing(self, model):
        batch = model(HISTORIES).logits
        torch.testing.assert_close(model(HISTORIES[1:, :3]).logits[0], batch[1])
        torch.testing.assert_close(model(torch.tensor([[0, 2, 6, 5]])).logits[0], batch[1])

    def test_sees_the_future(self, model):
        before, after = model(torch.tensor([[3, 1, 4], [3, 1, 5]])).last_hidden_state
        assert (before[0] - after[0]).abs().max() > 1e-4

    def test_learns_at_the_last_item_only(self, model):
        labels = torch.tensor([[-100, -100, -100, -100, -100, 2], [-100, -100, 7, -100, -100, -100]])
        model(HISTORIES, labels=labels).loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        labels[0, 2] = 1
        with pytest.raises(ValueError, match="`labels` must be -100 everywhere but at the last item"):
            model(HISTORIES, labels=labels)

    def test_labels_of_left_padded_histories(self, model):
        left = torch.tensor([[0, 0, 2, 6]])
        model(left, labels=torch.tensor([[-100, -100, -100, 5]]))
        with pytest.raises(ValueError, match="at the last item"):
            model(left, labels=torch.tensor([[-100, -100, 6, 5]]))

    def test_carries_no_state(self, model):
        with pytest.raises(ValueError, match="a new item changes what the model makes of all items before it"):
            model(HISTORIES, use_cache=True)
        cache = HistoryCache()
        with pytest.raises(ValueError, match="a new item changes"):
            model.recommend(HISTORIES, top_k=1, cache=cache)

    def test_recommends(self, model):
        rows, _ = model.recommend(HISTORIES, top_k=2)
        assert rows.shape == (2, 2)

    def test_is_saved_as_such(self, model, tmp_path):
        model.save_pretrained(tmp_path)
        loaded = AutoModel.from_pretrained(tmp_path)
        assert not loaded.config.causal
        assert torch.equal(loaded(HISTORIES).logits, model(HISTORIES).logits)

    def test_needs_a_length_to_pad_to(self):
        with pytest.raises(ValueError, match="`causal=False` pads each history to `max_position_embeddings`"):
            MLSA4RecConfig(causal=False)


def test_reference_initialiser():
    model = MLSA4Rec(MLSA4RecConfig(hidden_size=64, initializer="reference"))
    mixer = model.layers[0].mixer
    # Uniform within 1 / sqrt(inputs), whatever the layer.
    for weight, bound in ((model.item_embeddings.weight, 64), (mixer.in_proj.weight, 64), (mixer.dt_proj.weight, 4)):
        assert 0.95 * bound**-0.5 < weight.abs().max() <= bound**-0.5
    assert not mixer.dt_proj.bias.any()
    assert not model.item_embeddings.weight[0].any()
    # What it does not touch stays Mamba's.
    torch.testing.assert_close(-torch.exp(mixer.A_log[5]), -torch.arange(1.0, 33.0))


def test_interests_start_far_apart():
    attention = MLSA4Rec(MLSA4RecConfig(hidden_size=64)).interest_layer.attention
    assert attention.key_interests.std().item() == pytest.approx(1, rel=0.1)
    assert attention.value_interests.std().item() == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 64, "num_attention_heads": 7}, "`num_attention_heads` must divide `hidden_size`"),
        ({"num_interests": 0}, "`num_interests` must be at least 1, got 0"),
        ({"conv_kernel": 0}, "`conv_kernel` must be at least 1, got 0"),
        ({"attention_probs_dropout_prob": 1.0}, r"`attention_probs_dropout_prob` must be in \[0, 1\)"),
    ],
)
def test_configurations_that_cannot_work(fields, message):
    with pytest.raises(ValueError, match=message):
        MLSA4RecConfig(**fields)
