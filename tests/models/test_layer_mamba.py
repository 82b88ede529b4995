"""The Mamba block uses its linear layers by calling them, so that what is put in their place is trained and heard."""

import pytest
import torch
from torch import nn

from hf_seqrec.models.layer_mamba import MambaMixer
from tests.helpers import small_model

HISTORIES = torch.tensor([[3, 1, 4, 1, 5], [2, 7, 0, 0, 0]])
LINEAR_LAYERS = ("in_proj", "x_proj", "dt_proj", "out_proj")


class Adapted(nn.Linear):
    """A linear layer with a low-rank adapter, as LoRA's: `W x + b + B A x`."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None)
        self.load_state_dict(layer.state_dict())
        self.A = nn.Parameter(torch.randn(2, layer.in_features))
        self.B = nn.Parameter(torch.zeros(layer.out_features, 2))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) + input @ self.A.T @ self.B.T


def adapt(model, name):
    (mixer,) = (module for module in model.modules() if isinstance(module, MambaMixer))
    adapted = Adapted(getattr(mixer, name))
    setattr(mixer, name, adapted)
    return adapted


@pytest.mark.parametrize("name", LINEAR_LAYERS)
@pytest.mark.parametrize("only_last", [False, True])
def test_an_adapter_changes_nothing_at_first_and_is_trained(name, only_last):
    model = small_model(13).eval()
    expected = model(HISTORIES, output_logits=False, only_last=only_last).last_hidden_state
    adapted = adapt(model, name)
    states = model(HISTORIES, output_logits=False, only_last=only_last).last_hidden_state
    torch.testing.assert_close(states, expected, rtol=1e-5, atol=1e-6)
    states.square().sum().backward()
    assert adapted.B.grad is not None
    assert adapted.B.grad.abs().sum() > 0


@pytest.mark.parametrize("name", LINEAR_LAYERS)
def test_an_adapter_is_heard(name):
    model = small_model(13).eval()
    before = model(HISTORIES).logits
    adapted = adapt(model, name)
    with torch.no_grad():
        adapted.B.normal_(std=10)
    assert not torch.equal(model(HISTORIES).logits, before)


def test_what_hides_the_item_table_is_refused():
    model = small_model(13).eval()
    model.item_embeddings = nn.Sequential(model.item_embeddings)  # as LoRA wraps it
    with pytest.raises(TypeError, match=r"`item_embeddings` must be an `ItemTable`, got Sequential.*modules_to_save"):
        model.recommend(HISTORIES, top_k=2)
    with pytest.raises(TypeError, match="`value` must be an `ItemTable`, got Embedding"):
        small_model(13).set_input_embeddings(nn.Embedding(13, 16))


@pytest.mark.parametrize("histories", [[1, 2], torch.tensor([1, 2]), torch.tensor([[1.0, 2.0]])])
def test_histories_that_are_no_tensor_of_rows(histories):
    with pytest.raises(TypeError, match=r"`input_ids` must be a tensor of catalog rows \(integers\) of shape"):
        small_model(13).recommend(histories)
