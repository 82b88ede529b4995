"""The position-wise feed-forward network shared by the recommenders."""

from torch import Tensor, nn
from transformers.activations import ACT2FN

from .layer_dropout import Dropout


class FeedForward(nn.Module):
    r"""
    `LayerNorm(dropout(W2 dropout(act(W1 x))) + x)`, applied to every position.

    Post-normalised, as in RecBole's Transformer and Mamba4Rec (https://arxiv.org/abs/2403.03900, Equation 8).

    Args:
        hidden_size (`int`): Width `d` of input and output.
        intermediate_size (`int`, *optional*): Width between the two matrices; `None` gives `4 * hidden_size`.
        activation (`str`): Name of an activation of transformers, such as `"gelu"` or `"relu"`.
        dropout (`float`): Dropout rate after the activation and after the second matrix.
        layer_norm_eps (`float`): Epsilon of the normalisation.
        inner_dropout (`float`, *optional*): Dropout rate after the activation, where it is another.
    """

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int | None,
        activation: str,
        dropout: float,
        layer_norm_eps: float,
        inner_dropout: float | None = None,
    ) -> None:
        super().__init__()
        intermediate_size = intermediate_size or 4 * hidden_size
        self.in_proj = nn.Linear(hidden_size, intermediate_size)
        self.activation = ACT2FN[activation]
        self.out_proj = nn.Linear(intermediate_size, hidden_size)
        self.inner_dropout = Dropout(dropout if inner_dropout is None else inner_dropout)
        self.dropout = Dropout(dropout)
        self.layer_norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Map `(b, l, d)` to `(b, l, d)`."""
        projected = self.inner_dropout(self.activation(self.in_proj(hidden_states)))
        return self.layer_norm(self.dropout(self.out_proj(projected)) + hidden_states)
