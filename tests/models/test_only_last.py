"""What nobody asks for is left out in every arrangement of a layer, and the last states stay as they were."""

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModel, set_seed

HISTORIES = torch.tensor([[3, 1, 4, 1, 5, 9], [2, 0, 0, 0, 0, 0], [6, 5, 3, 5, 0, 0]])
TARGETS = torch.tensor([8, 9, 7])


def make(model_type, **fields):
    set_seed(0)
    config = AutoConfig.for_model(model_type, vocab_size=12, hidden_size=8, max_position_embeddings=9, **fields)
    return AutoModel.from_config(config).eval()


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("sasrec", {"normalization": "pre"}),
        ("sasrec", {"normalization": "post"}),
        ("sasrec", {"position_order": "last", "attend_to_padding": True}),
        ("sasrec", {"attn_implementation": "eager", "num_attention_heads": 2}),
        ("bert4rec", {"attn_implementation": "eager"}),
        ("moematrrec", {"gate": "token"}),
        ("moematrrec", {"causal": False}),
        ("mlsa4rec", {"causal": False}),
        ("recmamba", {"reference_padding": True}),
        ("mamba4rec", {"scan_backend": "chunked"}),
    ],
)
def test_scores_and_gradients(model_type, fields):
    model = make(model_type, **fields)
    whole = model(HISTORIES)
    last = model(HISTORIES, labels=TARGETS)
    losses = nn.functional.cross_entropy(whole.logits, TARGETS), last.loss
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)
    parameters = dict(model.named_parameters())
    of_whole, of_last = (torch.autograd.grad(loss, list(parameters.values()), allow_unused=True) for loss in losses)
    for name, expected, gradient in zip(parameters, of_whole, of_last, strict=True):
        assert (expected is None) == (gradient is None), name
        if expected is not None:
            torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6, msg=name)


def test_bfloat16_autocast():
    model = make("mamba4rec")
    expected = model(HISTORIES, labels=TARGETS).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(HISTORIES, labels=TARGETS).loss
    torch.testing.assert_close(loss, expected, rtol=3e-2, atol=0)


def test_a_layer_in_the_place_of_the_projection_is_called():
    """As LoRA puts one there: its matrix alone is not what it computes."""

    class Adapted(nn.Module):
        def __init__(self, base):
            super().__init__()
            self.base = base
            self.weight = base.weight

        def forward(self, states):
            return 3.0 * self.base(states)

    model = make("mamba4rec")
    mixer = model.layers[-1].mixer
    plain = model(HISTORIES).logits
    mixer.in_proj = Adapted(mixer.in_proj)
    adapted = model(HISTORIES).logits
    assert (adapted - plain)[:, 1:].abs().max() > 1e-3 * plain[:, 1:].abs().max()
    torch.testing.assert_close(model(HISTORIES, only_last=True).logits, adapted, rtol=1e-5, atol=1e-6)


def test_the_positions_left_out_are_not_computed():
    """The feed-forward network of the last layer sees one position a row; of the layer before, all of them."""
    model = make("mamba4rec", num_hidden_layers=2)
    seen = []
    for layer in model.layers:
        layer.feed_forward.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape[1]))
    model(HISTORIES, only_last=True)
    assert seen == [6, 1]
    model.recommend(HISTORIES, top_k=2)
    assert seen[2:] == [6, 1]
