"""GRU4Rec: a gated recurrent network over the items."""

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_gru4rec import GRU4RecConfig
from .history_context import HistoryContext
from .history_padding import last_real_position
from .layer_dropout import Dropout
from .modeling_seqrec import SeqRecPreTrainedModel


class GRU4RecLayer(GradientCheckpointingLayer):
    r"""
    A gated recurrent unit (Cho et al. 2014, https://arxiv.org/abs/1406.1078, Section 2.3) without biases:

        r_t = sigmoid(W_r x_t + U_r h_{t-1})              reset
        z_t = sigmoid(W_z x_t + U_z h_{t-1})              update
        n_t = tanh(W_n x_t + r_t * (U_n h_{t-1}))         candidate
        h_t = (1 - z_t) * n_t + z_t * h_{t-1}

    Layers are modules of their own, where `torch.nn.GRU` could stack them, because a row's state is its output at its
    last real position, and `torch.nn.GRU` shows the outputs of its last layer only. `torch.compile` leaves the
    recurrence as it is, which breaks the graph there: it does not trace `torch.nn.GRU`.
    """

    def __init__(self, input_size: int, config: GRU4RecConfig, layer_idx: int) -> None:
        super().__init__()
        self.layer_idx = layer_idx
        self.gru = nn.GRU(input_size, config.gru_hidden_size, bias=False, batch_first=True)

    def forward(self, hidden_states: Tensor, context: HistoryContext) -> Tensor:
        """Map `(b, l, d)` to `(b, l, gru_hidden_size)`, or with `context.only_last` to `(b, 1, gru_hidden_size)`."""
        cache, attention_mask = context.cache, context.attention_mask
        before = None if cache is None else cache.get(self.layer_idx, "hidden")
        states, _ = self.gru(hidden_states, None if before is None else before[None])
        if cache is not None:
            after = last_real_position(states, attention_mask)
            if before is not None:
                # A row without a new item stays as it was.
                after = torch.where(attention_mask.any(dim=1, keepdim=True), after, before)
            cache.set(self.layer_idx, "hidden", after)
        return context.needed(states)


class GRU4Rec(SeqRecPreTrainedModel):
    r"""
    GRU4Rec (Hidasi et al. 2016, https://arxiv.org/abs/1511.06939), as users of today know it from RecBole.

    `W h_t + b` with `h = GRU(dropout(embedding))`, scored against the item embeddings.

    The paper reads one-hot items, writes scores with a matrix of its own and trains on sessions side by side with
    pairwise losses; Tan et al. 2016 (https://arxiv.org/abs/1606.08117) add embeddings and their use as the output.
    Like RecBole (https://github.com/RUCAIBox/RecBole), which is what published comparisons ran, this model has tied
    embeddings, a linear layer behind the recurrence, no biases in it, and the softmax over the catalog as its loss.
    Unlike RecBole, which trains on every prefix of a history apart, it learns at every position at once. It starts
    otherwise, too: the matrices of all layers are drawn with Xavier's uniform distribution, there only those of the
    first; the embeddings and the last linear layer are drawn with `initializer_range`, there the embeddings with
    Xavier's normal distribution and the linear layer as torch does.
    """

    config: GRU4RecConfig
    _no_split_modules = ["GRU4RecLayer"]
    _can_record_outputs = {"hidden_states": GRU4RecLayer}

    def __init__(self, config: GRU4RecConfig) -> None:
        super().__init__(config)
        self.dropout = Dropout(config.hidden_dropout_prob)
        sizes = [config.hidden_size] + [config.gru_hidden_size] * (config.num_hidden_layers - 1)
        self.layers = nn.ModuleList(GRU4RecLayer(size, config, layer_idx) for layer_idx, size in enumerate(sizes))
        self.out_proj = nn.Linear(config.gru_hidden_size, config.hidden_size)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.GRU):
            for matrix in module.parameters():
                init.xavier_uniform_(matrix)

    def encode(self, inputs_embeds: Tensor, context: HistoryContext) -> Tensor:
        """Encode `(b, l, d)` item embeddings into `(b, l, d)` states."""
        return self.out_proj(self.run_layers(self.dropout(inputs_embeds), context))
