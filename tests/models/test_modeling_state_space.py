"""What all recommenders with Mamba blocks share."""

import pytest
import torch
from transformers import set_seed

import hf_seqrec
from hf_seqrec.models.configuration_state_space import StateSpaceConfig
from hf_seqrec.models.history_context import HistoryContext
from hf_seqrec.models.layer_mamba import MambaMixer

MODEL_TYPES = [name for name in hf_seqrec.MODEL_TYPES if issubclass(hf_seqrec.config_class(name), StateSpaceConfig)]


def small(model_type, **fields):
    set_seed(0)
    return hf_seqrec.model_class(model_type)(
        hf_seqrec.config_class(model_type)(vocab_size=31, hidden_size=16, **fields)
    )


def test_the_published_five_are_among_them():
    assert {"mamba4rec", "mambarec", "mlsa4rec", "moematrrec", "recmamba"} <= set(MODEL_TYPES)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_state_space_parameters_start_as_in_mamba(model_type):
    mixers = [module for module in small(model_type).modules() if isinstance(module, MambaMixer)]
    assert mixers
    for mixer in mixers:
        torch.testing.assert_close(torch.exp(mixer.A_log[3]), torch.arange(1.0, mixer.state_size + 1.0))
        assert (mixer.D == 1).all()
        steps = torch.nn.functional.softplus(mixer.dt_proj.bias)
        assert 0.0009 < steps.min() < steps.max() < 0.1001


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_every_block_has_its_own_state(model_type):
    model = small(model_type, num_hidden_layers=3)
    mixers = [module for module in model.modules() if isinstance(module, MambaMixer)]
    places = [mixer.layer_idx for mixer in mixers]
    assert sorted(places) == list(range(len(mixers)))


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_encoder_compiles_into_one_graph(model_type):
    torch.compiler.reset()
    model = small(model_type).eval()
    input_ids = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 6, 5, 0, 0, 0]])
    expected = model(input_ids, output_logits=False).last_hidden_state
    # eager: the graph without a compiler behind it, which a test machine may lack.
    encode = torch.compile(model.encode, fullgraph=True, backend="eager")
    states = encode(model.item_embeddings(input_ids), HistoryContext.from_mask((input_ids > 0).long()))
    torch.testing.assert_close(states[input_ids > 0], expected[input_ids > 0])
