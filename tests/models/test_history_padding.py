import torch

from hf_seqrec.models.history_padding import last_real_position, right_padded


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
