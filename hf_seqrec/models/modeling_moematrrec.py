"""MoEMaTrRec: Mamba and attention side by side, mixed by a gate."""

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_moematrrec import MoEMaTrRecConfig
from .history_context import HistoryContext
from .history_reference_padding import reference_layout
from .layer_attention import SelfAttention, causal_view
from .layer_dropout import Dropout
from .layer_feed_forward import FeedForward
from .layer_mamba import MambaMixer
from .modeling_state_space import WholeHistoryPreTrainedModel


class MoEMaTrRecLayer(GradientCheckpointingLayer):
    r"""
    Two experts for every item, and a gate between them:

        a = LayerNorm(x + dropout(Attention(x)))
        w_t = sigmoid(w m_t + b)        with m_t the mean of x_1 .. x_t (`gate="sequence"`), or x_t (`gate="token"`)
        y = w * Mamba(x) + (1 - w) * a
        LayerNorm(dropout(W2 ReLU(W1 y)) + y)

    With `gate="constant"`, `y = u * Mamba(x) + v * a`: two learned scalars that start at 0.5 each.

    With `config.causal=False` the attention sees the future, and m is the mean of the whole history at each position.
    """

    def __init__(self, config: MoEMaTrRecConfig, layer_idx: int) -> None:
        super().__init__()
        self.gate, self.causal, self.layer_idx = config.gate, config.causal, layer_idx
        self.mixer = MambaMixer(config, layer_idx)
        self.attention = SelfAttention(config, layer_idx, is_causal=config.causal)
        self.attention_dropout = Dropout(config.hidden_dropout_prob)
        self.attention_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        if config.gate == "constant":
            self.mamba_weight = nn.Parameter(torch.tensor(0.5))
            self.attention_weight = nn.Parameter(torch.tensor(0.5))
        else:
            self.gate_proj = nn.Linear(config.hidden_size, 1)
        self.feed_forward = FeedForward(
            config.hidden_size,
            config.intermediate_size,
            activation="relu",
            dropout=config.hidden_dropout_prob,
            layer_norm_eps=config.layer_norm_eps,
            inner_dropout=0.0,
        )

    def forward(self, hidden_states: Tensor, context: HistoryContext) -> Tensor:
        """Map `(b, l, d)` to `(b, l, d)`, or with `context.only_last` to `(b, 1, d)`."""
        gate_input = None if self.gate == "constant" else self._gate_input(hidden_states, context)
        from_mamba = self.mixer(hidden_states, context)
        query = context.needed(hidden_states)
        attended, _ = self.attention(query, context, hidden_states)
        from_attention = self.attention_layer_norm(self.attention_dropout(attended) + query)
        if gate_input is None:
            return self.feed_forward(self.mamba_weight * from_mamba + self.attention_weight * from_attention)
        weight = torch.sigmoid(self.gate_proj(gate_input))
        return self.feed_forward(weight * from_mamba + (1 - weight) * from_attention)

    def _gate_input(self, hidden_states: Tensor, context: HistoryContext) -> Tensor:
        if self.gate == "token":
            return context.needed(hidden_states)
        if not self.causal:
            return hidden_states.mean(dim=1, keepdim=True)
        cache = context.cache
        state = None if cache is None else cache.get(self.layer_idx, "mean")
        means, state = running_mean(hidden_states, context.attention_mask, state)
        if cache is not None:
            cache.set(self.layer_idx, "mean", state)
        return context.needed(means)


class MoEMaTrRec(WholeHistoryPreTrainedModel):
    r"""
    MoEMaTrRec (Alokam, https://github.com/alokamgnaneswarasai/MambaRec, "hybrid approach"; its class `SASmambaRec`).

    `dropout(sqrt(d) * embedding + position)`, then [`MoEMaTrRecLayer`]s; the proposal has one.

    The proposal's text has the gate, and so has its code since 19 December 2024. Its numbers on LFM-1b were made
    before, with two learned scalars in place of the gate: `gate="constant"`.

    Differences from its code:
    - Attention and gate are causal. There, both see the whole sequence, so that every position but the last is trained
      on the answer; `causal=False` reproduces this.
    - Padding changes nothing. There, it stands on the left of each history, is attended to, averaged and fed to Mamba
      like an item, and positions count from it; `causal=False` reproduces this too. Here they count from the first
      item of a history, so that the state stays true when an item is added.
    - The loss is the softmax over the catalog, not binary cross-entropy with one negative.
    """

    config: MoEMaTrRecConfig
    _no_split_modules = ["MoEMaTrRecLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _can_record_outputs = {"hidden_states": MoEMaTrRecLayer, "attentions": SelfAttention}

    def __init__(self, config: MoEMaTrRecConfig) -> None:
        super().__init__(config)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.layers = nn.ModuleList(
            MoEMaTrRecLayer(config, layer_idx) for layer_idx in range(config.num_hidden_layers)
        )
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, MoEMaTrRecLayer) and module.gate == "constant":
            init.constant_(module.mamba_weight, 0.5)
            init.constant_(module.attention_weight, 0.5)

    def encode(self, inputs_embeds: Tensor, context: HistoryContext) -> Tensor:
        """Encode `(b, l, d)` item embeddings into `(b, l, d)` states."""
        if self.config.causal:
            positions, visible = causal_view(self.config, context.attention_mask, context.cache)
            return self._encode(inputs_embeds, positions, context._replace(visible=visible))
        padding = self.item_table.padding()
        layout = reference_layout(inputs_embeds, context.attention_mask, padding, self.longest, side="left")
        positions = torch.arange(self.longest, device=inputs_embeds.device)[None]
        all_count = HistoryContext.with_padding_as_items(layout.inputs_embeds)
        return layout.gather(self._encode(layout.inputs_embeds, positions, all_count))

    def _encode(self, inputs_embeds: Tensor, positions: Tensor, context: HistoryContext) -> Tensor:
        scale = self.config.hidden_size**0.5
        return self.run_layers(self.dropout(inputs_embeds * scale + self.position_embeddings(positions)), context)


def running_mean(
    hidden_states: Tensor, attention_mask: Tensor | None = None, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    r"""
    Average each position with all before it, `(b, l, d)`, and return the state `(b, d + 1)`: the sum, and how many.

    Args:
        hidden_states (`torch.Tensor` of shape `(b, l, d)`): What is averaged.
        attention_mask (`torch.LongTensor` of shape `(b, l)`, *optional*): 1 at the positions that count.
        state (`torch.Tensor` of shape `(b, d + 1)`, *optional*): State of what came before.
    """
    summands = hidden_states.to(torch.promote_types(hidden_states.dtype, torch.float32))
    summands = torch.nn.functional.pad(summands, (0, 1), value=1.0)
    if attention_mask is not None:
        summands = summands * attention_mask[:, :, None]
    sums = summands.cumsum(dim=1)
    if state is not None:
        sums = sums + state[:, None]
    # An empty row has no mean; zero is as good as anything.
    means = sums[:, :, :-1] / sums[:, :, -1:].clamp(min=1)
    # A copy: as a view, the state would keep the sums of all positions in memory.
    return means.to(hidden_states.dtype), sums[:, -1].clone()
