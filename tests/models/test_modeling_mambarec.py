import pytest
import torch
import torch.nn.functional as F
from transformers import set_seed

from hf_seqrec import MambaRec, MambaRecConfig
from tests.models.by_the_book import mamba_by_the_book
from tests.models.reference_outputs import assert_answers_as_reference, reference_cases

HISTORY = torch.tensor([[3, 1, 4, 1, 5, 9]])


@pytest.mark.parametrize(**reference_cases("mambarec"))
def test_answers_as_the_stack_of_its_repository(case):
    """
    What its repository calls `MambaRec`, and what its numbers were made with, is RecMamba (test_modeling_recmamba.py);
    the stack of its text is there for language models only, and that ran: `MixerModel` of `slender_mamba`, with
    LayerNorm and without fused kernels, on mamba_ssm's own `Block` and `Mamba`, whose kernel was replaced by
    mamba_ssm's own definition in torch. Its embedding was sqrt(d) times ours.
    """
    assert_answers_as_reference(case)


@torch.no_grad()
def test_equals_the_equations():
    set_seed(0)
    model = MambaRec(MambaRecConfig(vocab_size=11, hidden_size=8, state_size=3, num_hidden_layers=2)).eval().double()
    for parameter in model.parameters():
        parameter += 0.3 * torch.randn_like(parameter)
    hidden_states = model.item_embeddings.weight[HISTORY[0]] * 8**0.5
    for layer in model.layers:
        norm = layer.layer_norm
        hidden_states = hidden_states + mamba_by_the_book(
            layer.mixer, F.layer_norm(hidden_states, (8,), norm.weight, norm.bias, eps=1e-5)
        )
    expected = model.layer_norm(hidden_states)
    torch.testing.assert_close(model(HISTORY).last_hidden_state[0], expected, rtol=1e-9, atol=1e-9)


def test_takes_histories_of_any_length():
    model = MambaRec(MambaRecConfig(vocab_size=11, hidden_size=8)).eval()
    assert model.config.max_position_embeddings is None
    assert model(HISTORY.repeat(1, 200)).logits.shape == (1, 11)


def test_order_counts_without_positions():
    set_seed(0)
    model = MambaRec(MambaRecConfig(vocab_size=11, hidden_size=8)).eval()
    first, second = model(torch.tensor([[3, 1, 4, 5], [1, 4, 3, 5]])).last_hidden_state[:, -1]
    assert (first - second).abs().max() > 1e-4
