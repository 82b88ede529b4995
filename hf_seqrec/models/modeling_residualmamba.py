"""ResidualMamba: Mamba blocks that add to the last item's embedding and never replace it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_residualmamba import ResidualMambaConfig
from .history_context import HistoryContext
from .layer_dropout import Dropout
from .layer_mamba import MambaMixer
from .modeling_state_space import StateSpacePreTrainedModel
from .op_selective_scan import selective_scan


class HistoryAverage(nn.Module):
    r"""
    `W a_t`, where `a_t` averages the inputs so far, recent ones more: for channel `c`, with a learned `0 < w_c < 1`,

        a_tc = (sum_{s <= t} w_c^(t-s) u_sc) / (sum_{s <= t} w_c^(t-s))

    Both sums are states of a linear recurrence, so that what is carried between two calls has a fixed size.
    """

    # Decay would pull every average towards one speed.
    no_weight_decay = ("decay_logit",)

    def __init__(self, config: ResidualMambaConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.scan_backend = config.scan_backend
        self.decay_logit = nn.Parameter(torch.empty(config.hidden_size))
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    @torch.no_grad()
    def init_decay(self) -> None:
        """Start with decays from .27 to .95: averages over one to twenty items."""
        init.copy_(self.decay_logit, torch.linspace(-1, 3, len(self.decay_logit), device=self.decay_logit.device))

    def forward(self, hidden_states: Tensor, context: HistoryContext) -> Tensor:
        """Map `(b, l, d)` to `(b, l, d)`, or with `context.only_last` to `(b, 1, d)`."""
        before = None if context.cache is None else context.cache.get(self.layer_idx, "sums")
        summed = torch.cat([hidden_states, torch.ones_like(hidden_states)], dim=-1)  # [b, l, 2 d]
        decay_logit = self.decay_logit.to(torch.promote_types(self.decay_logit.dtype, torch.float32))
        every_step = summed.new_ones(*summed.shape[:2], 1)
        sums, after = selective_scan(
            summed,
            torch.ones_like(summed),
            F.logsigmoid(decay_logit).repeat(2)[:, None],
            every_step,
            every_step,
            initial_state=before,
            lengths=context.lengths,
            backend=self.scan_backend,
        )
        if context.cache is not None:
            context.cache.set(self.layer_idx, "sums", after)
        weighted, weights = context.needed(sums).chunk(2, dim=-1)
        # The weights sum to 1 or more, and to 0 beyond a row's end.
        return self.out_proj(weighted / weights.clamp(min=1))


class ResidualMambaLayer(GradientCheckpointingLayer):
    """`h + dropout(Mamba(m * u) + Average(u))` with `u = LayerNorm(h)`, then `h + F(h)`; see [`ResidualMamba`]."""

    def __init__(self, config: ResidualMambaConfig, layer_idx: int) -> None:
        super().__init__()
        assert config.intermediate_size is not None  # the configuration has filled it in
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.position_dropout = Dropout(config.position_dropout_prob)
        self.mixer = MambaMixer(config, layer_idx)
        self.average = HistoryAverage(config, layer_idx)
        self.feed_forward_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.in_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.out_proj = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: Tensor, context: HistoryContext) -> Tensor:
        """Map `(b, l, d)` to `(b, l, d)`, or with `context.only_last` to `(b, 1, d)`."""
        normalized = self.layer_norm(hidden_states)
        kept = self.position_dropout(normalized.new_ones(*normalized.shape[:2], 1))
        mixed = self.dropout(self.mixer(normalized * kept, context) + self.average(normalized, context))
        hidden_states = mixed + context.needed(hidden_states)
        inner = self.dropout(F.gelu(self.in_proj(self.feed_forward_layer_norm(hidden_states))))
        return hidden_states + self.dropout(self.out_proj(inner))


class ResidualMamba(StateSpacePreTrainedModel):
    r"""
    ResidualMamba (of this package, no paper: https://pypi.org/project/hf-seqrec/): Mamba for short histories.

        h_0 = dropout(sqrt(d) * e)                             e: embedding of each item, d: hidden_size
        u_i = LayerNorm_i(h_{i-1})                             i = 1..L
        y_i = h_{i-1} + dropout(Mamba_i(m_i * u_i) + Average_i(u_i))
        h_i = y_i + dropout(W2_i dropout(gelu(W1_i LayerNorm'_i(y_i))))
        s_j = LayerNorm(h_L) . e_j                             score of item j

    While training `m_i` is 0 at the positions that `position_dropout_prob` drops, as dropout of attention weights
    hides items from attention. Mamba has no convolution (`conv_kernel=1`), and [`HistoryAverage`] stands beside it.

    On short histories the last item says most of what comes next, and the order of the others next to nothing. Here
    the last item's embedding reaches the tied softmax through a path without a matrix, and each layer adds what the
    earlier items change about it. Without a layer (`num_hidden_layers=0`) the score is
    `LayerNorm(sqrt(d) * e) . e_j`, from the last item alone.
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

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, HistoryAverage):
            module.init_decay()

    def encode(self, inputs_embeds: Tensor, context: HistoryContext) -> Tensor:
        """Encode `(b, l, d)` item embeddings into `(b, l, d)` states."""
        hidden_states = self.dropout(inputs_embeds * self.config.hidden_size**0.5)
        return self.layer_norm(self.run_layers(hidden_states, context))
