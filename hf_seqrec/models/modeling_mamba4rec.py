"""Mamba4Rec: one selective state-space block and one feed-forward network a layer, and no positions."""

from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_mamba4rec import Mamba4RecConfig
from .history_context import HistoryContext
from .layer_dropout import Dropout
from .layer_feed_forward import FeedForward
from .layer_mamba import MambaMixer
from .modeling_state_space import StateSpacePreTrainedModel


class Mamba4RecLayer(GradientCheckpointingLayer):
    r"""
    `FFN(LayerNorm(dropout(Mamba(x)) + x))`, where a model of one layer leaves out the `+ x`.

    The single layer without a residual is the authors' code (https://github.com/chengkai-liu/Mamba4Rec), and what the
    paper's one-layer results were made with; the paper's Equation 7 does not show it.
    """

    def __init__(self, config: Mamba4RecConfig, layer_idx: int) -> None:
        super().__init__()
        self.has_residual = config.num_hidden_layers > 1
        self.mixer = MambaMixer(config, layer_idx)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(
            config.hidden_size,
            config.intermediate_size,
            activation="gelu",
            dropout=config.hidden_dropout_prob,
            layer_norm_eps=config.layer_norm_eps,
        )

    def forward(self, hidden_states: Tensor, context: HistoryContext) -> Tensor:
        """Map `(b, l, d)` to `(b, l, d)`, or with `context.only_last` to `(b, 1, d)`."""
        mixed = self.dropout(self.mixer(hidden_states, context))
        if self.has_residual:
            mixed = mixed + context.needed(hidden_states)
        return self.feed_forward(self.layer_norm(mixed))


class Mamba4Rec(StateSpacePreTrainedModel):
    r"""
    Mamba4Rec (Liu et al. 2024, https://arxiv.org/abs/2403.03900), Section 3.

    `LayerNorm(dropout(embedding))`, then [`Mamba4RecLayer`]s. Causal, so it learns at every position; its state
    between two events has a fixed size, so a user's recommendations are updated in constant time.
    """

    config: Mamba4RecConfig
    _no_split_modules = ["Mamba4RecLayer"]
    _can_record_outputs = {"hidden_states": Mamba4RecLayer}

    def __init__(self, config: Mamba4RecConfig) -> None:
        super().__init__(config)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(Mamba4RecLayer(config, layer_idx) for layer_idx in range(config.num_hidden_layers))
        self.post_init()

    def _init_as_reference(self, module: nn.Module) -> None:
        """As the authors' `_init_weights` leaves them: every linear layer drawn again, its bias zero."""
        if isinstance(module, MambaMixer):
            super(StateSpacePreTrainedModel, self)._init_weights(module.dt_proj)

    def encode(self, inputs_embeds: Tensor, context: HistoryContext) -> Tensor:
        """Encode `(b, l, d)` item embeddings into `(b, l, d)` states."""
        return self.run_layers(self.layer_norm(self.dropout(inputs_embeds)), context)
