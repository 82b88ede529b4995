"""What layers are told of a batch: what is needed of it, and rows of similar length together."""

import torch

from hf_seqrec.models import history_context
from hf_seqrec.models.history_context import HistoryContext


def test_needed_is_the_last_real_position_when_only_that_is_asked_for():
    states = torch.arange(12.0).view(2, 3, 2)
    context = HistoryContext.from_mask(torch.tensor([[1, 1, 0], [1, 1, 1]]))
    assert context.needed(states) is states
    assert context._replace(only_last=True).needed(states).tolist() == [[[2, 3]], [[10, 11]]]


def test_padding_that_counts_as_items():
    context = HistoryContext.with_padding_as_items(torch.zeros(2, 3, 4))
    assert context.attention_mask.tolist() == [[1, 1, 1]] * 2
    assert context.lengths is None


def test_encoding_by_length_gives_the_states_of_one_call_and_computes_less(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([3, 8, 1, 0, 8, 2, 5])
    mask = (torch.arange(8) < lengths[:, None]).long()
    inputs_embeds = torch.randn(7, 8, 2, generator=generator, requires_grad=True)
    shapes = []

    def encode(embeds, context):
        shapes.append(tuple(embeds.shape[:2]))
        return embeds.cumsum(dim=1) * context.attention_mask[:, :, None] * context.events["gap"][:, :, None]

    context = HistoryContext.from_mask(mask)._replace(events={"gap": torch.rand(7, 8)})
    expected = encode(inputs_embeds, context)
    (expected_gradient,) = torch.autograd.grad(expected.square().sum(), inputs_embeds)
    shapes.clear()
    monkeypatch.setattr(history_context, "_POSITIONS_PER_GROUP", 14)
    states = history_context.encode_by_length(encode, inputs_embeds, context)
    (gradient,) = torch.autograd.grad(states.square().sum(), inputs_embeds)
    assert shapes == [(2, 8), (2, 5), (2, 2), (1, 1)]
    torch.testing.assert_close(states, expected)
    torch.testing.assert_close(gradient, expected_gradient)
