import math

import pytest
import torch
import torch.nn.functional as F
from transformers import set_seed

from hf_seqrec import Mamba4Rec, Mamba4RecConfig
from tests.models.by_the_book import mamba_by_the_book
from tests.models.reference_outputs import assert_answers_as_reference, reference_cases

INPUT_IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


def mamba4rec_by_the_book(model, input_ids):
    hidden_states = model.layer_norm(model.item_embeddings.weight[input_ids])
    for layer in model.layers:
        mixed = mamba_by_the_book(layer.mixer, hidden_states)
        hidden_states = layer.layer_norm(mixed + hidden_states if len(model.layers) > 1 else mixed)
        feed_forward = layer.feed_forward
        inner = F.gelu(feed_forward.in_proj(hidden_states))
        hidden_states = feed_forward.layer_norm(feed_forward.out_proj(inner) + hidden_states)
    return hidden_states


@pytest.mark.parametrize("num_hidden_layers", [1, 2])
@torch.no_grad()
def test_equals_the_equations(num_hidden_layers):
    set_seed(0)
    config = Mamba4RecConfig(vocab_size=11, hidden_size=8, state_size=3, num_hidden_layers=num_hidden_layers)
    model = Mamba4Rec(config).eval().double()
    # Away from the initial values, where a missing term could hide.
    for parameter in model.parameters():
        parameter += 0.3 * torch.randn_like(parameter)
    expected = mamba4rec_by_the_book(model, INPUT_IDS[0])
    torch.testing.assert_close(model(INPUT_IDS).last_hidden_state[0], expected, rtol=1e-9, atol=1e-9)
    scores = expected[-1] @ model.item_embeddings.weight[1:].T
    torch.testing.assert_close(model(INPUT_IDS).logits[0, 1:], scores.float())


def test_state_space_parameters_start_as_in_mamba():
    mixer = Mamba4Rec(Mamba4RecConfig(hidden_size=32)).layers[0].mixer
    torch.testing.assert_close(-torch.exp(mixer.A_log[5]), -torch.arange(1.0, 33.0))
    assert (mixer.D == 1).all()
    steps = F.softplus(mixer.dt_proj.bias)
    assert 0.001 <= steps.min() < 0.005 < 0.05 < steps.max() <= 0.1
    assert 0 < mixer.dt_proj.weight.abs().max() <= mixer.time_step_rank**-0.5
    assert mixer.conv1d.weight.abs().max() <= 0.5


def test_reference_initialiser_sets_every_step_to_softplus_of_zero():
    mixer = Mamba4Rec(Mamba4RecConfig(hidden_size=32, initializer="reference")).layers[0].mixer
    assert not mixer.dt_proj.bias.any()
    assert mixer.dt_proj.weight.std().item() == pytest.approx(0.02, rel=0.3)
    # What the authors' repository does not touch stays Mamba's.
    torch.testing.assert_close(mixer.A_log[0, 1].item(), math.log(2))
    assert (mixer.D == 1).all()
    assert 0.2 < mixer.conv1d.weight.abs().max() <= 0.5


def test_state_has_a_fixed_size():
    model = Mamba4Rec(Mamba4RecConfig(vocab_size=11, hidden_size=8)).eval()

    def state_bytes(length):
        cache = model(INPUT_IDS.repeat(1, length), use_cache=True).cache
        return sum(state.nbytes for state in cache.states.values())

    # 16 channels: 3 inputs of the convolution and 32 states each, in float32.
    assert state_bytes(1) == state_bytes(50) == 16 * (3 + 32) * 4


def test_unknown_initialiser():
    with pytest.raises(Exception, match="initializer"):
        Mamba4RecConfig(initializer="xavier")


@pytest.mark.parametrize(**reference_cases("mamba4rec"))
def test_answers_as_the_authors_code(case):
    """
    Its class ran as it is, with the Mamba block of mamba_ssm itself, whose kernel was replaced by mamba_ssm's own
    definition in torch (`selective_scan_ref`), and with RecBole's `gather_indexes` in an otherwise empty base class.
    """
    assert_answers_as_reference(case)
