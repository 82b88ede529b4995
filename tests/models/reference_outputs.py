"""
What the authors' code answered, for weights that anybody can make again.

A file `tests/fixtures/<model_type>/reference_outputs.json` holds cases: a configuration, a seed, histories and the
states, or the scores of all items, that the authors' own code gave for them. It was run in place, at the commit that
the case names, in eval mode and float32, with the weights of `numbered_weights` copied over; the docstring of each
test says what had to be put in its way. Nothing of that code is here.
"""

import json
from pathlib import Path

import numpy as np
import torch

import hf_seqrec

FIXTURES = Path(__file__).parent.parent / "fixtures"


def reference_cases(model_type):
    """Return the cases of a model as `(name, case)`, in the words of `pytest.mark.parametrize`."""
    cases = json.loads((FIXTURES / model_type / "reference_outputs.json").read_text(encoding="utf-8"))
    return {"argnames": "case", "argvalues": cases, "ids": [case["name"] for case in cases]}


def numbered_weights(model, seed):
    """Fill a model, padding row included, with random numbers that depend on its parameters' names and shapes only."""
    generator = np.random.RandomState(seed)  # the one generator of numpy whose numbers never change
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            shape = tuple(parameter.shape)
            scale = shape[-1] ** -0.5 if len(shape) > 1 else 0.1
            start = 0.0
            if name.endswith("A_log"):
                start = np.log(np.arange(1, shape[1] + 1))
            elif name.endswith("dt_proj.bias"):
                start = -3.0
            elif name.endswith((".D", "norm.weight")):
                start = 1.0
            parameter.copy_(torch.from_numpy(start + scale * generator.standard_normal(shape)))
    return model


def model_of(case, **fields):
    """Make the model of a case, in eval mode; `fields` replace those of its configuration."""
    model_type = case["model_type"]
    config = hf_seqrec.config_class(model_type)(**case["config"] | fields)
    return numbered_weights(hf_seqrec.model_class(model_type)(config), case["seed"]).eval()


@torch.no_grad()
def answer(case, **fields):
    """
    Compute what a case asks for: states `(n, d)` at every real position or at each history's last, or scores `(b, v)`
    of the next item.
    """
    input_ids = torch.tensor(case["input_ids"])
    if case["positions"] == "next":
        return model_of(case, **fields)(input_ids).logits[:, 1:]
    mask = input_ids > 0
    if case["positions"] == "last":
        mask &= mask.long().cumsum(dim=1) == mask.sum(dim=1, keepdim=True)
    return model_of(case, **fields)(input_ids, output_logits=False).last_hidden_state[mask]


def assert_answers_as_reference(case, **fields):
    """Compare, with the tolerance that two orders of summing up in float32 need."""
    expected = torch.tensor(case["scores" if case["positions"] == "next" else "states"])
    torch.testing.assert_close(answer(case, **fields), expected, rtol=0, atol=1e-5)
