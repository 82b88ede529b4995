"""MLSA4Rec: Mamba with low-rank attention to a few interests, then more Mamba."""

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_mlsa4rec import MLSA4RecConfig
from .history_context import HistoryContext
from .history_reference_padding import reference_layout
from .layer_dropout import Dropout
from .layer_interest_attention import InterestAttention, ReferenceInterestAttention
from .layer_mamba import MambaMixer
from .modeling_state_space import WholeHistoryPreTrainedModel


class MLSA4RecLayer(GradientCheckpointingLayer):
    """`LayerNorm(dropout(Mamba(x)) + x)`."""

    def __init__(self, config: MLSA4RecConfig, layer_idx: int) -> None:
        super().__init__()
        self.mixer = MambaMixer(config, layer_idx)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: Tensor, context: HistoryContext) -> Tensor:
        """Map `(b, l, d)` to `(b, l, d)`, or with `context.only_last` to `(b, 1, d)`."""
        mixed = self.dropout(self.mixer(hidden_states, context))
        return self.layer_norm(mixed + context.needed(hidden_states))


class MambaInterestLayer(GradientCheckpointingLayer):
    r"""
    The Mamba-LSA module of the paper:

        u = LayerNorm(dropout(Mamba(x)) + x)
        v = InterestAttention(u)
        g = LayerNorm(GELU(W1 v) * u)
        y = LayerNorm(dropout(GELU(W2 [v; g])) + GELU(W3 x))
    """

    def __init__(self, config: MLSA4RecConfig) -> None:
        super().__init__()
        attention_class = InterestAttention if config.causal else ReferenceInterestAttention
        self.mixer = MambaMixer(config, layer_idx=0)
        self.mixer_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = attention_class(config, layer_idx=0)
        self.gate_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.gate_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.out_proj = nn.Linear(2 * config.hidden_size, config.hidden_size)
        self.skip_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: Tensor, context: HistoryContext) -> Tensor:
        """Map `(b, l, d)` to `(b, l, d)`, or with `context.only_last` to `(b, 1, d)`."""
        # The interests are pooled from all positions.
        mixed = self.dropout(self.mixer(hidden_states, context._replace(only_last=False)))
        mixed = self.mixer_layer_norm(mixed + hidden_states)
        attended = context.needed(self.attention(mixed, context))
        gated = self.gate_layer_norm(gelu(self.gate_proj(attended)) * context.needed(mixed))
        joined = self.dropout(gelu(self.out_proj(torch.cat([attended, gated], dim=-1))))
        return self.layer_norm(joined + gelu(self.skip_proj(context.needed(hidden_states))))


class MLSA4Rec(WholeHistoryPreTrainedModel):
    r"""
    MLSA4Rec (Su and Huang 2024, https://arxiv.org/abs/2407.13135).

    `LayerNorm(dropout(embedding))`, a [`MambaInterestLayer`], then [`MLSA4RecLayer`]s. No positions.

    Differences from the authors' code (https://github.com/Sujz13/MLSA4Rec):
    - The attention is causal, see [`InterestAttention`]: interests are pooled from what a position has seen, padding
      left out, and the softmax runs over the interests. So the model learns at every position, and its state between
      two events has a fixed size. The code's softmax runs over the positions that ask, its interests see the future
      and the padding: `causal=False` reproduces that, see [`ReferenceInterestAttention`].
    - Four modules of the code that its forward pass never uses are left out (`pos_q_linear`, `pos_k_linear`, `pos_ln`,
      `dense`), and so is the Mamba block from which its first one is copied.
    """

    config: MLSA4RecConfig
    _no_split_modules = ["MambaInterestLayer", "MLSA4RecLayer"]
    _can_record_outputs = {"hidden_states": [MambaInterestLayer, MLSA4RecLayer]}

    def __init__(self, config: MLSA4RecConfig) -> None:
        super().__init__(config)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.interest_layer = MambaInterestLayer(config)
        self.layers = nn.ModuleList(MLSA4RecLayer(config, 1 + index) for index in range(config.num_hidden_layers))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, InterestAttention):
            init.normal_(module.key_interests)
            init.normal_(module.value_interests)

    def _init_as_reference(self, module: nn.Module) -> None:
        """As the authors' `_init_weights` leaves them, but for the padding row, which is zero here."""
        if isinstance(module, MambaMixer):
            module = module.dt_proj
        if isinstance(module, nn.Linear | nn.Embedding):
            init.kaiming_uniform_(module.weight, a=5**0.5)
        if isinstance(module, nn.Linear) and module.bias is not None:
            init.zeros_(module.bias)
        if isinstance(module, nn.Embedding):
            self._zero_padding_row(module)

    def encode(self, inputs_embeds: Tensor, context: HistoryContext) -> Tensor:
        """Encode `(b, l, d)` item embeddings into `(b, l, d)` states."""
        if self.config.causal:
            return self._encode(inputs_embeds, context)
        padding = self.item_table.padding()
        layout = reference_layout(inputs_embeds, context.attention_mask, padding, self.longest, side="right")
        all_count = HistoryContext.with_padding_as_items(layout.inputs_embeds)
        return layout.gather(self._encode(layout.inputs_embeds, all_count))

    def _encode(self, inputs_embeds: Tensor, context: HistoryContext) -> Tensor:
        hidden_states = self.layer_norm(self.dropout(inputs_embeds))
        return self.run_layers(hidden_states, context, [self.interest_layer, *self.layers])
