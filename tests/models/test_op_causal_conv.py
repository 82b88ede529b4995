"""The causal convolution's definition against torch's convolution, its state, and its errors."""

import pytest
import torch
import torch.nn.functional as F

from hf_seqrec.models.op_causal_conv import causal_conv1d, causal_conv1d_reference, last_inputs


def test_definition_against_numbers_worked_out_by_hand() -> None:
    x = torch.tensor([[[1.0], [2.0], [3.0]]])
    weight = torch.tensor([[10.0, 1.0]])
    # 10 * previous + current, after a state of 5
    y = causal_conv1d_reference(x, weight, initial_state=torch.tensor([[[5.0]]]))
    state = last_inputs(x, 2, torch.tensor([[[5.0]]]), None)
    assert y.flatten().tolist() == [51.0, 12.0, 23.0]
    assert state.flatten().tolist() == [3.0]


@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 2, 9])
def test_definition_is_a_depthwise_convolution(width: int, length: int) -> None:
    x, weight = torch.randn(3, length, 5, dtype=torch.float64), torch.randn(5, width, dtype=torch.float64)
    bias = torch.randn(5, dtype=torch.float64)
    wanted = F.conv1d(x.transpose(1, 2), weight[:, None], bias, padding=width - 1, groups=5)[..., :length]
    y = causal_conv1d_reference(x, weight, bias, "silu")
    torch.testing.assert_close(y, F.silu(wanted).transpose(1, 2))


@pytest.mark.parametrize("width", [1, 2, 4])
def test_state_continues_the_sequence(width: int) -> None:
    x, weight = torch.randn(2, 12, 3, dtype=torch.float64), torch.randn(3, width, dtype=torch.float64)
    whole, final = causal_conv1d(x, weight, activation="silu")
    state, pieces = None, []
    for start, end in ((0, 1), (1, 3), (3, 3), (3, 12)):
        piece, state = causal_conv1d(x[:, start:end], weight, activation="silu", initial_state=state)
        pieces.append(piece)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole)
    torch.testing.assert_close(state, final)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_row_with_length_equals_the_row_alone(width: int) -> None:
    x, weight = torch.randn(5, 7, 3, dtype=torch.float64), torch.randn(3, width, dtype=torch.float64)
    before = torch.randn(5, 3, width - 1, dtype=torch.float64)
    lengths = torch.tensor([7, 4, 2, 1, 0])
    y, state = causal_conv1d(x, weight, initial_state=before, lengths=lengths)
    for row, length in enumerate(lengths.tolist()):
        row_only = slice(row, row + 1)
        wanted, wanted_state = causal_conv1d(x[row_only, :length], weight, initial_state=before[row_only])
        torch.testing.assert_close(y[row_only, :length], wanted)
        torch.testing.assert_close(state[row_only], wanted_state)
        assert y[row, length:].eq(0).all()


def test_gradients_against_finite_differences() -> None:
    def convolve(x, weight, bias, state):
        return causal_conv1d(x, weight, bias, "silu", state, torch.tensor([5, 2]))

    shapes = [(2, 5, 2), (2, 3), (2,), (2, 2, 2)]
    assert torch.autograd.gradcheck(
        convolve, [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    )


def test_output_has_the_dtype_of_the_input() -> None:
    x, weight = torch.randn(2, 5, 3, dtype=torch.bfloat16), torch.randn(3, 4)
    y, state = causal_conv1d(x, weight, activation="silu")
    assert (y.dtype, state.dtype) == (torch.bfloat16, torch.bfloat16)
    assert causal_conv1d_reference(x, weight, activation="silu").dtype == torch.bfloat16


def test_wrong_arguments_are_named() -> None:
    x, weight = torch.randn(2, 5, 3), torch.randn(3, 4)
    with pytest.raises(ValueError, match="`activation` must be 'silu' or None, got 'gelu'"):
        causal_conv1d(x, weight, activation="gelu")
    with pytest.raises(ValueError, match=r"`weight` must have shape \(3, 4\), got \(5, 4\)"):
        causal_conv1d(x, torch.randn(5, 4))
    with pytest.raises(ValueError, match="`initial_state` must have shape"):
        causal_conv1d(x, weight, initial_state=torch.randn(2, 3, 4))
