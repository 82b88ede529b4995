"""MambaRec*: a Transformer whose blocks, feed-forward network and positions included, are replaced by Mamba's."""

from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_mambarec import MambaRecConfig
from .history_context import HistoryContext
from .layer_dropout import Dropout
from .layer_mamba import MambaMixer
from .modeling_state_space import StateSpacePreTrainedModel


class MambaRecLayer(GradientCheckpointingLayer):
    """`x + Mamba(LayerNorm(x))`, the block of Gu and Dao 2023, https://arxiv.org/abs/2312.00752, Section 3.4."""

    def __init__(self, config: MambaRecConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mixer = MambaMixer(config, layer_idx)

    def forward(self, hidden_states: Tensor, context: HistoryContext) -> Tensor:
        """Map `(b, l, d)` to `(b, l, d)`, or with `context.only_last` to `(b, 1, d)`."""
        return self.mixer(self.layer_norm(hidden_states), context) + context.needed(hidden_states)


class MambaRec(StateSpacePreTrainedModel):
    r"""
    MambaRec* (Alokam, https://github.com/alokamgnaneswarasai/MambaRec): "replacing the entire Transformer block".

    `dropout(sqrt(d) * embedding)`, L [`MambaRecLayer`]s, a last LayerNorm. Causal, and without positions, which Mamba
    does not need: the order of the items is in its state.

    What is here is the stack of the proposal's text and picture: embedding, dropout, L Mamba blocks, prediction.
    Around each block stand the residual and the normalisation with which Mamba's authors stack them; the stack that
    the repository ships for its language models (`slender_mamba`) is the same.

    The numbers that carry this name in the proposal were made by another model: its repository's class `MambaRec` is
    one bare Mamba block over items and positions, which is [`RecMamba`] here, and its logs agree with that digit for
    digit (128,864 parameters). Train and convert that one to compare with them.
    """

    config: MambaRecConfig
    _no_split_modules = ["MambaRecLayer"]
    _can_record_outputs = {"hidden_states": MambaRecLayer}

    def __init__(self, config: MambaRecConfig) -> None:
        super().__init__(config)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.layers = nn.ModuleList(MambaRecLayer(config, layer_idx) for layer_idx in range(config.num_hidden_layers))
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def encode(self, inputs_embeds: Tensor, context: HistoryContext) -> Tensor:
        """Encode `(b, l, d)` item embeddings into `(b, l, d)` states."""
        hidden_states = self.dropout(inputs_embeds * self.config.hidden_size**0.5)
        return self.layer_norm(self.run_layers(hidden_states, context))
