import pytest
import torch
import torch.nn.functional as F
from transformers import set_seed

from hf_seqrec import ResidualMamba, ResidualMambaConfig
from tests.models.by_the_book import mamba_by_the_book

HISTORY = torch.tensor([[3, 1, 4, 1, 5, 9]])


def small_model(**fields):
    set_seed(0)
    model = ResidualMamba(ResidualMambaConfig(vocab_size=11, hidden_size=8, state_size=3, **fields)).eval().double()
    # Away from the initial values, where a missing term could hide.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return model


def normalized(layer_norm, hidden_states):
    return F.layer_norm(hidden_states, (8,), layer_norm.weight, layer_norm.bias, eps=1e-5)


def average_by_the_book(average, inputs):
    """The weighted mean of one sequence `(l, d)`, a position and a channel at a time."""
    decay = torch.sigmoid(average.decay_logit)
    averages = torch.zeros_like(inputs)
    for t in range(len(inputs)):
        for channel in range(inputs.shape[1]):
            weights = torch.stack([decay[channel] ** (t - s) for s in range(t + 1)])
            averages[t, channel] = (weights * inputs[: t + 1, channel]).sum() / weights.sum()
    return averages @ average.out_proj.weight.T


def feed_forward_by_the_book(layer, hidden_states):
    inner = F.gelu(layer.in_proj(normalized(layer.feed_forward_layer_norm, hidden_states)))
    return hidden_states + layer.out_proj(inner)


@torch.no_grad()
@pytest.mark.parametrize("conv_kernel", [1, 4])
def test_equals_the_equations(conv_kernel):
    model = small_model(conv_kernel=conv_kernel)
    hidden_states = model.item_embeddings.weight[HISTORY[0]] * 8**0.5
    for layer in model.layers:
        inputs = normalized(layer.layer_norm, hidden_states)
        mixed = mamba_by_the_book(layer.mixer, inputs) + average_by_the_book(layer.average, inputs)
        hidden_states = feed_forward_by_the_book(layer, hidden_states + mixed)
    expected = normalized(model.layer_norm, hidden_states)
    torch.testing.assert_close(model(HISTORY).last_hidden_state[0], expected, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_without_layers_scores_from_the_last_item_alone():
    model = small_model(num_hidden_layers=0)
    items = model.item_embeddings.weight
    expected = normalized(model.layer_norm, items[9] * 8**0.5) @ items[1:].T
    torch.testing.assert_close(model(HISTORY).logits[0, 1:], expected.float())
    cache = model(HISTORY[:, :-1], use_cache=True).cache_params
    torch.testing.assert_close(model(HISTORY[:, -1:], cache_params=cache).logits[0, 1:], expected.float())


def test_positions_that_mamba_does_not_see_still_reach_average_and_scores():
    model = small_model(num_hidden_layers=1, position_dropout_prob=0.9999, hidden_dropout_prob=0.0).train()
    layer = model.layers[0]
    with torch.no_grad():
        hidden_states = model.item_embeddings.weight[HISTORY[0]] * 8**0.5
        hidden_states = hidden_states + average_by_the_book(layer.average, normalized(layer.layer_norm, hidden_states))
        hidden_states = feed_forward_by_the_book(layer, hidden_states)
        expected = normalized(model.layer_norm, hidden_states)
        torch.testing.assert_close(model(HISTORY, only_last=False, output_logits=True).last_hidden_state[0], expected)


def test_averages_start_over_one_to_twenty_items():
    average = ResidualMamba(ResidualMambaConfig(vocab_size=11, hidden_size=8)).layers[0].average
    items_averaged = 1 / (1 - torch.sigmoid(average.decay_logit))
    assert items_averaged.min().item() == pytest.approx(1.37, abs=0.01)
    assert items_averaged.max().item() == pytest.approx(21.1, abs=0.1)


def test_state_has_a_fixed_size():
    model = ResidualMamba(ResidualMambaConfig(vocab_size=11, hidden_size=8)).eval()

    def state_bytes(length):
        states = model(HISTORY.repeat(1, length), use_cache=True).cache.states
        return sum(state.nbytes for name, state in states.items() if name.startswith("0."))

    # 16 channels with 8 states each, and the 8 sums and 8 sums of weights of the average, in float32.
    assert state_bytes(1) == state_bytes(50) == (16 * 8 + 16) * 4


@pytest.mark.parametrize("fields", [{"num_hidden_layers": -1}, {"position_dropout_prob": 1.0}])
def test_refuses_what_is_out_of_range(fields):
    with pytest.raises(ValueError, match=f"`{next(iter(fields))}` must be"):
        ResidualMambaConfig(**fields)
