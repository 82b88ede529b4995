"""RecMamba: a bare Mamba block over items and their positions, for histories of thousands of items."""

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from .configuration_recmamba import RecMambaConfig
from .history_cache import HistoryCache
from .history_context import HistoryContext
from .history_reference_padding import reference_layout
from .layer_dropout import Dropout
from .layer_mamba import MambaMixer
from .modeling_state_space import StateSpacePreTrainedModel


class RecMambaLayer(GradientCheckpointingLayer):
    r"""
    `Mamba(x)`, and nothing else: no residual, no normalisation. Where there is more than one layer, `Mamba(x) + x`.

    The authors' code has one. A second without a residual would see next to nothing: what comes out of a gated block
    is of second order in what goes in.
    """

    def __init__(self, config: RecMambaConfig, layer_idx: int) -> None:
        super().__init__()
        self.has_residual = config.num_hidden_layers > 1
        self.mixer = MambaMixer(config, layer_idx)

    def forward(self, hidden_states: Tensor, context: HistoryContext) -> Tensor:
        """Map `(b, l, d)` to `(b, l, d)`, or with `context.only_last` to `(b, 1, d)`."""
        mixed = self.mixer(hidden_states, context)
        return mixed + context.needed(hidden_states) if self.has_residual else mixed


class RecMamba(StateSpacePreTrainedModel):
    r"""
    RecMamba (Yang et al. 2024, https://arxiv.org/abs/2403.16371), Section 3.

    `Mamba(dropout(sqrt(d) * embedding + position))`, see [`RecMambaLayer`]. The class `MambaRec` of
    https://github.com/alokamgnaneswarasai/MambaRec, with which the numbers called MambaRec* were made, is this model
    too.

    Differences from the authors' code (https://github.com/nancheng58/RecMamba):
    - Padding changes nothing. Theirs goes through Mamba, so a score depends on how much of it there is, and positions
      count from it; `reference_padding` reproduces this. Here positions count from the first item of a history, so
      that the state stays true when an item is added.
    - The loss is the softmax over the catalog, not binary cross-entropy with one negative.
    """

    config: RecMambaConfig
    _no_split_modules = ["RecMambaLayer"]
    _can_record_outputs = {"hidden_states": RecMambaLayer}

    def __init__(self, config: RecMambaConfig) -> None:
        super().__init__(config)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.layers = nn.ModuleList(RecMambaLayer(config, layer_idx) for layer_idx in range(config.num_hidden_layers))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, MambaMixer) and self.config.initializer == "mamba":
            # No normalisation makes up for projections that are too small.
            module.init_projections()

    def encode(self, inputs_embeds: Tensor, context: HistoryContext) -> Tensor:
        """Encode `(b, l, d)` item embeddings into `(b, l, d)` states."""
        longest = self.config.max_position_embeddings
        if not self.config.reference_padding:
            positions = item_positions(context.attention_mask, longest, context.cache)
            return self._encode(inputs_embeds, positions, context)
        padding = self.item_table.padding()
        layout = reference_layout(inputs_embeds, context.attention_mask, padding, longest, side="left")
        positions = torch.arange(longest, device=inputs_embeds.device)[None]
        all_count = HistoryContext.with_padding_as_items(layout.inputs_embeds)
        return layout.gather(self._encode(layout.inputs_embeds, positions, all_count))

    def _encode(self, inputs_embeds: Tensor, positions: Tensor, context: HistoryContext) -> Tensor:
        scale = self.config.hidden_size**0.5
        return self.run_layers(self.dropout(inputs_embeds * scale + self.position_embeddings(positions)), context)


def item_positions(attention_mask: Tensor, longest: int, cache: HistoryCache | None = None) -> Tensor:
    r"""
    Return the position of each item, counted from the first of its whole history: `(b, l)`, or `(1, l)` if all alike.

    How many items each row has had is kept in `cache` and counted up. Positions beyond a row's end are anything in
    `0..longest-1`.

    Args:
        attention_mask (`torch.LongTensor` of shape `(b, l)`): 1 at real positions, which come first in each row.
        longest (`int`): How many positions the model has.
        cache ([`HistoryCache`], *optional*): State that the call goes on from.

    Raises:
        ValueError: if a history grows beyond the positions that the model has.
    """
    positions = torch.arange(attention_mask.shape[1], device=attention_mask.device)[None]
    if cache is None:
        return positions
    counts = attention_mask.sum(dim=1)
    before = cache.get(0, "n_items")
    if before is not None:
        positions = positions + before[:, None]
        counts = counts + before
        if int(counts.max()) > longest:
            raise ValueError(
                f"`cache` and `input_ids` make a history of {int(counts.max())} items, but this model has "
                f"{longest} positions (`config.max_position_embeddings`). Start again without `cache`, from "
                f"the most recent {longest} items or fewer."
            )
    cache.set(0, "n_items", counts)
    return positions.clamp(max=longest - 1)
