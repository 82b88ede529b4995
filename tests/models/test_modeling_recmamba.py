import pytest
import torch
from transformers import set_seed

from hf_seqrec import RecMamba, RecMambaConfig
from tests.models.by_the_book import mamba_by_the_book
from tests.models.reference_outputs import assert_answers_as_reference, model_of, reference_cases

HISTORIES = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 0, 0, 0]])


def small(**fields):
    set_seed(0)
    config = RecMambaConfig(vocab_size=11, hidden_size=8, state_size=3, max_position_embeddings=8, **fields)
    model = RecMamba(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize(**reference_cases("recmamba"))
def test_answers_as_the_authors_code(case):
    """
    Its class ran as it is, with the Mamba block of mamba_ssm itself, whose kernel was replaced by mamba_ssm's own
    definition in torch (`selective_scan_ref`). The class `MambaRec` of alokamgnaneswarasai/MambaRec, run with the same
    weights, gave the same numbers to the last bit.
    """
    assert_answers_as_reference(case)


def test_the_padding_of_the_authors_code_counts():
    case = reference_cases("recmamba")["argvalues"][0]
    with pytest.raises(AssertionError, match="not close"):
        assert_answers_as_reference(case, reference_padding=False)


@torch.no_grad()
def test_more_layers_have_residuals():
    model = small(num_hidden_layers=2).double()
    places = torch.arange(6)
    hidden_states = model.item_embeddings.weight[HISTORIES[0]] * 8**0.5 + model.position_embeddings.weight[places]
    for layer in model.layers:
        hidden_states = mamba_by_the_book(layer.mixer, hidden_states) + hidden_states
    torch.testing.assert_close(model(HISTORIES).last_hidden_state[0], hidden_states, rtol=1e-9, atol=1e-9)


def test_the_callers_padding_changes_nothing_where_the_authors_does():
    model = small(reference_padding=True)
    batch = model(HISTORIES).logits
    torch.testing.assert_close(model(HISTORIES[1:, :3]).logits[0], batch[1])
    left = torch.tensor([[0, 2, 6, 5]])
    torch.testing.assert_close(model(left).logits[0], batch[1])


def test_positions_go_on_with_the_state():
    model = small()
    cache = model(HISTORIES, use_cache=True).cache
    later = model(torch.tensor([[7], [8]]), cache=cache).logits
    torch.testing.assert_close(model(torch.tensor([[3, 1, 4, 1, 5, 9, 7]])).logits[0], later[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(torch.tensor([[2, 6, 5, 8]])).logits[0], later[1], rtol=1e-4, atol=1e-5)


def test_positions_end():
    model = small()
    cache = model(HISTORIES, use_cache=True).cache
    with pytest.raises(ValueError, match="a history of 9 items, but this model has 8 positions"):
        model(torch.tensor([[7, 7, 7], [7, 7, 7]]), cache=cache)


def test_state_has_a_fixed_size():
    model = small()

    def state_bytes(length):
        cache = model(HISTORIES[:1, :length], use_cache=True).cache
        return sum(state.nbytes for state in cache.states.values())

    # 16 channels: 3 inputs of the convolution and 3 states each, in float32; and the number of items, in int64.
    assert state_bytes(1) == state_bytes(6) == 16 * (3 + 3) * 4 + 8


def test_no_state_with_the_authors_padding():
    with pytest.raises(ValueError, match="every new item moves the positions"):
        small(reference_padding=True)(HISTORIES, use_cache=True)


def test_the_signal_survives_an_untrained_block():
    set_seed(0)
    hidden_states = RecMamba(RecMambaConfig()).eval()(torch.randint(1, 3417, (4, 50))).last_hidden_state
    # Projections drawn with 0.02 leave 0.0004.
    assert hidden_states.std() > 0.002


def test_reference_initialiser_draws_every_matrix():
    model = RecMamba(RecMambaConfig(hidden_size=64, initializer="reference"))
    mixer = model.layers[0].mixer
    # Xavier: variance 2 / (inputs + outputs).
    assert mixer.A_log.std().item() == pytest.approx((2 / (128 + 32)) ** 0.5, rel=0.1)
    assert mixer.dt_proj.weight.std().item() == pytest.approx((2 / (128 + 4)) ** 0.5, rel=0.1)
    assert model.position_embeddings.weight.std().item() == pytest.approx((2 / (2000 + 64)) ** 0.5, rel=0.1)
    assert not model.item_embeddings.weight[0].any()
    # The script fails on what has one axis, and passes over it.
    assert (mixer.D == 1).all()
    assert torch.nn.functional.softplus(mixer.dt_proj.bias).max() <= 0.1001


def test_weights_from_a_checkpoint_are_not_drawn_again(tmp_path):
    model = small(initializer="reference")
    assert model.item_embeddings.weight[0].any()
    model.save_pretrained(tmp_path)
    loaded = RecMamba.from_pretrained(tmp_path)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_positions_are_needed():
    with pytest.raises(Exception, match="max_position_embeddings"):
        RecMambaConfig(max_position_embeddings=None)


def test_padding_of_the_authors_code_learns_nothing():
    case = reference_cases("recmamba")["argvalues"][0]
    model = model_of(case)
    input_ids = torch.tensor(case["input_ids"])
    model(input_ids, labels=input_ids.masked_fill(input_ids == 0, -100)).loss.backward()
    assert not model.item_embeddings.weight.grad[0].any()
