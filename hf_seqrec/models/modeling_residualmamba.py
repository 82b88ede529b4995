"""ResidualMamba: Mamba blocks that add to the last item's embedding and never replace it."""

from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_residualmamba import ResidualMambaConfig
from .history_context import HistoryContext
from .layer_dropout import Dropout
from .layer_mamba import MambaMixer
from .modeling_state_space import StateSpacePreTrainedModel


class ResidualMambaLayer(GradientCheckpointingLayer):
    """`h + dropout(Mamba(m * LayerNorm(h)))`, where `m` is 0 at the positions that `position_dropout_prob` drops."""

    def __init__(self, config: ResidualMambaConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mixer = MambaMixer(config, layer_idx)
        self.position_dropout = Dropout(config.position_dropout_prob)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: Tensor, context: HistoryContext) -> Tensor:
        """Map `(b, l, d)` to `(b, l, d)`, or with `context.only_last` to `(b, 1, d)`."""
        kept = self.position_dropout(hidden_states.new_ones(*hidden_states.shape[:2], 1))
        mixed = self.dropout(self.mixer(self.layer_norm(hidden_states) * kept, context))
        return mixed + context.needed(hidden_states)


class ResidualMamba(StateSpacePreTrainedModel):
    r"""
    ResidualMamba (of this package, no paper: https://pypi.org/project/hf-seqrec/): Mamba for short histories.

        h_0 = dropout(sqrt(d) * e)                            e: embedding of each item, d: hidden_size
        h_i = h_{i-1} + dropout(Mamba_i(m_i * LayerNorm_i(h_{i-1})))      i = 1..L; m_i drops whole positions
        s_j = LayerNorm(h_L) . e_j                            score of item j

    On short histories the last item says most of what comes next. Here its embedding reaches the tied softmax through
    a path without a matrix, and each layer adds what the earlier items change about it. Without a layer
    (`num_hidden_layers=0`) the score is `LayerNorm(sqrt(d) * e) . e_j`, from the last item alone.
    """

    config: ResidualMambaConfig
    _no_split_modules = ["ResidualMambaLayer"]
    _can_record_outputs = {"hidden_states": ResidualMambaLayer}

    def __init__(self, config: ResidualMambaConfig) -> None:
        super().__init__(config)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.layers = nn.ModuleList(
            ResidualMambaLayer(config, layer_idx) for layer_idx in range(config.num_hidden_layers)
        )
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def encode(self, inputs_embeds: Tensor, context: HistoryContext) -> Tensor:
        """Encode `(b, l, d)` item embeddings into `(b, l, d)` states."""
        hidden_states = self.dropout(inputs_embeds * self.config.hidden_size**0.5)
        return self.layer_norm(self.run_layers(hidden_states, context))
