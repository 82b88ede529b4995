"""
Agreement with other people's code: its outputs for inputs and weights that both sides can make again.

A fixture holds the source (repository, commit, file), our configuration, the seed of the weights, the histories, and
the scores that the other code computed, in evaluation mode, after our weights had been copied into it. Each test says
how they were copied.
"""

import json
from pathlib import Path

import numpy as np
import torch

import hf_seqrec

FIXTURES = Path(__file__).parents[1] / "fixtures"


@torch.no_grad()
def fill_weights(model, seed):
    """Give every parameter numbers far from any initialisation, the same with every version of every library."""
    # RandomState's stream is frozen by NumPy's policy.
    generator = np.random.RandomState(seed)
    for name, parameter in sorted(model.named_parameters()):
        values = torch.from_numpy(0.3 * generator.standard_normal(parameter.shape))
        parameter.copy_(values + 1 if name.endswith("layer_norm.weight") else values)
    model.item_embeddings.weight[0] = 0


def load_agreement(name):
    """Return a fixture as a dictionary, and the model that it describes with the weights that it describes."""
    fixture = json.loads((FIXTURES / f"{name}.json").read_text())
    model_type = name.split("/")[0]
    model = hf_seqrec.model_class(model_type)(hf_seqrec.config_class(model_type)(**fixture["config"])).eval()
    fill_weights(model, fixture["weights_seed"])
    return fixture, model


@torch.no_grad()
def assert_agrees(name, tolerance=1e-5):
    """Compare our scores of every item after each history with the fixture's."""
    fixture, model = load_agreement(name)
    expected = torch.tensor(fixture["scores"])
    difference = (model(torch.tensor(fixture["input_ids"])).logits[:, 1:] - expected).abs().max()
    # Scores that differ from one another by far more than what is allowed.
    assert expected.std() > 0.1
    assert difference < tolerance
