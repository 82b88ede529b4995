"""BERT4Rec: attention in both directions, learned by filling in masked items."""

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_bert4rec import BERT4RecConfig
from .history_context import HistoryContext
from .layer_attention import SelfAttention, bidirectional_view
from .layer_dropout import Dropout
from .layer_feed_forward import FeedForward
from .modeling_seqrec import SeqRecPreTrainedModel


class BERT4RecLayer(GradientCheckpointingLayer):
    """`FFN(LayerNorm(dropout(attention(x)) + x))` with post-normalised [`FeedForward`] (paper, Equations 2 to 4)."""

    def __init__(self, config: BERT4RecConfig, layer_idx: int) -> None:
        super().__init__()
        self.attention = SelfAttention(config, layer_idx, is_causal=False)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(
            config.hidden_size,
            config.intermediate_size,
            activation=config.hidden_act,
            dropout=config.hidden_dropout_prob,
            layer_norm_eps=config.layer_norm_eps,
            inner_dropout=0.0,
        )

    def forward(self, hidden_states: Tensor, context: HistoryContext) -> Tensor:
        """Map `(b, l, d)` to `(b, l, d)`, or with `context.only_last` to `(b, 1, d)`."""
        query = context.needed(hidden_states)
        mixed, _ = self.attention(query, context, hidden_states)
        return self.feed_forward(self.layer_norm(self.dropout(mixed) + query))


class BERT4Rec(SeqRecPreTrainedModel):
    r"""
    BERT4Rec (Sun et al. 2019, https://arxiv.org/abs/1904.06690), Section 3.

    `dropout(LN(embedding + position))`, [`BERT4RecLayer`]s, then the transform `u = LN(GELU(W h + b))`, and
    `u E^T + bias` as the scores (Equation 7), with the item embeddings `E` tied.

    Trained by cloze: some items of a history are replaced by the mask row, and `labels` ask for them there. To predict
    the next item, the mask row is appended to the history, and its oldest item dropped where there is no place left;
    `forward` without `labels` and `recommend` do it themselves.

    As the authors' TensorFlow code (https://github.com/FeiSun/BERT4Rec), except:
    - The mask and padding rows are in no softmax and are never recommended; there they take part in it.
    - No token-type embedding: with a single type it is a constant that the positions can hold.
    """

    config: BERT4RecConfig
    _no_split_modules = ["BERT4RecLayer"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _can_record_outputs = {"hidden_states": BERT4RecLayer, "attentions": SelfAttention}

    def __init__(self, config: BERT4RecConfig) -> None:
        super().__init__(config)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.layers = nn.ModuleList(BERT4RecLayer(config, layer_idx) for layer_idx in range(config.num_hidden_layers))
        self.transform = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.transform_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.output_bias = nn.Parameter(torch.empty(config.n_items + 1))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        spread = self.config.initializer_range
        if isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=spread, a=-2 * spread, b=2 * spread)
        elif isinstance(module, nn.Embedding) and not getattr(module.weight, "_is_hf_initialized", False):
            init.trunc_normal_(module.weight, std=spread, a=-2 * spread, b=2 * spread)
            if module.padding_idx is not None:
                init.zeros_(module.weight[module.padding_idx])
        elif isinstance(module, BERT4Rec):
            init.zeros_(module.output_bias)

    def with_query(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Append the mask row to each right-padded history, without the oldest item where it is full."""
        input_ids, attention_mask = self._most_recent(
            input_ids, attention_mask, self.config.max_position_embeddings - 1
        )
        end = attention_mask.sum(dim=1, keepdim=True)
        input_ids, attention_mask = (nn.functional.pad(values, (0, 1)) for values in (input_ids, attention_mask))
        return input_ids.scatter(1, end, self.config.mask_row), attention_mask.scatter(1, end, 1)

    def item_tables(self) -> dict[str, Tensor]:
        """Return the parameters that have a row for each item, by name: padding first, other special rows last."""
        return super().item_tables() | {"output_bias": self.output_bias}

    def item_bias(self) -> Tensor | None:
        """Return the bias of the scores of padding and all items, `(n_items + 1,)`."""
        return self.output_bias

    def encode(self, inputs_embeds: Tensor, context: HistoryContext) -> Tensor:
        """Encode `(b, l, d)` item embeddings into `(b, l, d)` states."""
        positions = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device)
        hidden_states = self.dropout(self.layer_norm(inputs_embeds + self.position_embeddings(positions)))
        visible = bidirectional_view(self.config, context.attention_mask)
        hidden_states = self.run_layers(hidden_states, context._replace(visible=visible))
        return self.transform_layer_norm(self.activation(self.transform(hidden_states)))
