import torch

from hf_seqrec.models import history_padding as padding_module
from hf_seqrec.models.history_padding import encode_by_length, last_real_position, right_padded


def test_moves_real_positions_to_the_front_and_back():
    mask = torch.tensor([[0, 0, 1, 1], [1, 0, 1, 0], [1, 1, 1, 1]])
    values = torch.tensor([[9, 9, 1, 2], [3, 9, 4, 9], [5, 6, 7, 8]])
    padding = right_padded(mask)
    assert padding.attention_mask.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]
    moved = padding.gather(values)
    assert [row[:n].tolist() for row, n in zip(moved, [2, 2, 4], strict=True)] == [[1, 2], [3, 4], [5, 6, 7, 8]]
    assert padding.scatter(moved).tolist() == values.tolist()
    states = values[:, :, None].expand(-1, -1, 2).float()
    assert torch.equal(padding.scatter(padding.gather(states)), states)
    assert last_real_position(padding.gather(states), padding.attention_mask)[:, 0].tolist() == [2, 4, 8]


def test_right_padding_is_left_as_it_is():
    assert right_padded(torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]])).order is None


def test_encoding_by_length_gives_the_states_of_one_call_and_computes_less(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor([3, 8, 1, 0, 8, 2, 5])
    mask = (torch.arange(8) < lengths[:, None]).long()
    inputs_embeds = torch.randn(7, 8, 2, generator=generator, requires_grad=True)
    shapes = []

    def encode(embeds, mask):
        shapes.append(tuple(embeds.shape[:2]))
        return embeds.cumsum(dim=1) * mask[:, :, None]

    expected = encode(inputs_embeds, mask)
    (expected_gradient,) = torch.autograd.grad(expected.square().sum(), inputs_embeds)
    shapes.clear()
    monkeypatch.setattr(padding_module, "_POSITIONS_PER_GROUP", 14)
    states = encode_by_length(encode, inputs_embeds, mask)
    (gradient,) = torch.autograd.grad(states.square().sum(), inputs_embeds)
    assert shapes == [(2, 8), (2, 5), (2, 2), (1, 1)]
    torch.testing.assert_close(states, expected)
    torch.testing.assert_close(gradient, expected_gradient)
