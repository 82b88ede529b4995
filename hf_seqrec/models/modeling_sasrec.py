"""SASRec: causal self-attention over the items and their positions."""

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_sasrec import SASRecConfig
from .history_context import HistoryContext
from .layer_attention import SelfAttention, causal_view
from .layer_dropout import Dropout
from .modeling_seqrec import SeqRecPreTrainedModel


class SASRecLayer(GradientCheckpointingLayer):
    r"""
    Attention `A(query, keys and values)` and a position-wise network `F(x) = W2 ReLU(W1 x)` with dropout after
    each of its matrices, in one of three arrangements (`config.normalization`):

        query:  q = LN1(x);              y = LN2(q + A(q, x));    F(y) + y
        pre:    q = LN1(x);              y = x + A(q, q);         F(LN2(y)) + y
        post:   y = LN1(x + A(x, x));                             LN2(F(y) + y)

    The paper (Equation 5 and the formula behind it) writes `x + A(LN(x))`. Its code, and with it all results, adds the
    normalised query instead, and takes keys and values from `x` as it is: that is `query`.
    """

    def __init__(self, config: SASRecConfig, layer_idx: int) -> None:
        super().__init__()
        self.normalization = config.normalization
        self.attention_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = SelfAttention(config, layer_idx, is_causal=True)
        self.feed_forward_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.in_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: Tensor, context: HistoryContext) -> Tensor:
        """Map `(b, l, d)` to `(b, l, d)`, or with `context.only_last` to `(b, 1, d)`."""
        source = self.attention_layer_norm(hidden_states) if self.normalization == "pre" else hidden_states
        hidden_states = context.needed(hidden_states)
        query = hidden_states if self.normalization == "post" else self.attention_layer_norm(hidden_states)
        mixed, _ = self.attention(query, context, source)
        if self.normalization == "query":
            hidden_states = self.feed_forward_layer_norm(query + mixed)
            return self._feed_forward(hidden_states) + hidden_states
        if self.normalization == "pre":
            hidden_states = hidden_states + mixed
            return self._feed_forward(self.feed_forward_layer_norm(hidden_states)) + hidden_states
        hidden_states = self.attention_layer_norm(hidden_states + mixed)
        return self.feed_forward_layer_norm(self._feed_forward(hidden_states) + hidden_states)

    def _feed_forward(self, hidden_states: Tensor) -> Tensor:
        inner = self.activation(self.dropout(self.in_proj(hidden_states)))
        return self.dropout(self.out_proj(inner))


class SASRec(SeqRecPreTrainedModel):
    r"""
    SASRec (Kang and McAuley 2018, https://arxiv.org/abs/1808.09781), Section III.

    `dropout(sqrt(d) * embedding + position)`, [`SASRecLayer`]s, a last LayerNorm.

    Follows the widely used PyTorch code https://github.com/pmixer/SASRec.pytorch, whose attention has an output matrix
    that the authors' own (https://github.com/kang205/SASRec) lacks. Differences:
    - Padding changes nothing. pmixer's code pads on the left and lets items attend to the padding, so a score depends
      on how much there is; `attend_to_padding` reproduces it.
    - Positions count from the start of a history, so that keys and values of the past stay true when an item is added;
      `position_order="last"` counts as both codes do.
    - The loss is the softmax over the catalog, not binary cross-entropy with one negative, which costs SASRec a third
      of its accuracy (Klenitskiy and Vasilev 2023, https://arxiv.org/abs/2309.07602).
    """

    config: SASRecConfig
    _no_split_modules = ["SASRecLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _can_record_outputs = {"hidden_states": SASRecLayer, "attentions": SelfAttention}

    def __init__(self, config: SASRecConfig) -> None:
        super().__init__(config)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.layers = nn.ModuleList(SASRecLayer(config, layer_idx) for layer_idx in range(config.num_hidden_layers))
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    def encode(self, inputs_embeds: Tensor, context: HistoryContext) -> Tensor:
        """Encode `(b, l, d)` item embeddings into `(b, l, d)` states."""
        positions, visible = causal_view(self.config, context.attention_mask, context.cache)
        if self.config.position_order == "last":
            longest = self.config.max_position_embeddings
            positions = (positions + (longest - context.attention_mask.sum(dim=1))[:, None]).clamp(max=longest - 1)
        scale = self.config.hidden_size**0.5
        hidden_states = self.dropout(inputs_embeds * scale + self.position_embeddings(positions))
        if self.config.attend_to_padding:
            hidden_states, visible = self._with_padding(hidden_states, context.attention_mask.sum(dim=1))
            # With a position before each row, the last one is not where the lengths say.
            context = context._replace(only_last=False)
        hidden_states = self.run_layers(hidden_states, context._replace(visible=visible))
        return self.layer_norm(hidden_states[:, 1:] if self.config.attend_to_padding else hidden_states)

    def _with_padding(self, hidden_states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        r"""
        Put one padding position before each history, and say how much it counts: `(b, 1 + l, d)` and a mask.

        All padding before a history is alike: the same zero vector without a position, which sees nothing but padding,
        through every layer. So one position stands for the n of them, its attention scores raised by log(n).
        """
        hidden_states = nn.functional.pad(hidden_states, (0, 0, 1, 0))
        b, l = hidden_states.shape[:2]
        places = torch.arange(l, device=lengths.device)
        visible = torch.zeros(l, l, dtype=hidden_states.dtype, device=lengths.device)
        visible = visible.masked_fill(places > places[:, None], -torch.inf)
        n_padding = (self.config.max_position_embeddings - lengths).to(hidden_states.dtype)
        visible = visible.repeat(b, 1, 1, 1)  # [b, 1, 1 + l, 1 + l]
        visible[:, 0, 1:, 0] = n_padding.log()[:, None]
        return hidden_states, visible
