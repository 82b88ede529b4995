"""What the recommenders with Mamba blocks share: how their weights start."""

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .configuration_state_space import StateSpaceConfig, WholeHistoryConfig
from .layer_mamba import MambaMixer
from .modeling_seqrec import SeqRecPreTrainedModel


class StateSpacePreTrainedModel(SeqRecPreTrainedModel):
    r"""
    Base of the recommenders with Mamba blocks.

    With `config.initializer = "mamba"` the state-space parameters start as Mamba's authors start them; `"reference"`
    then starts them over as the code of the model's own authors does, see `_init_as_reference`.
    """

    config: StateSpaceConfig

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, MambaMixer):
            module.init_state_space()
        if self.config.initializer == "reference":
            self._init_as_reference(module)

    def _init_as_reference(self, module: nn.Module) -> None:
        r"""
        Draw every matrix with Xavier's normal distribution, as the training scripts of RecMamba and of MambaRec do.

        `A_log`, the convolution and `dt_proj` are matrices to those scripts too: all states of a channel then forget
        at about the same speed. What has one axis keeps its first value there; here biases start at zero, and so does
        the padding row.
        """
        # A MambaMixer comes after its own layers, and its `init_state_space` has just undone what was drawn for them.
        for parameter in module.parameters(recurse=isinstance(module, MambaMixer)):
            if parameter.dim() > 1:
                init.xavier_normal_(parameter)
        if isinstance(module, nn.Embedding):
            self._zero_padding_row(module)

    def _zero_padding_row(self, embedding: nn.Embedding) -> None:
        # The flag is the whole parameter's; a slice of it does not show it.
        if embedding.padding_idx is not None and not getattr(embedding.weight, "_is_hf_initialized", False):
            init.zeros_(embedding.weight[embedding.padding_idx])


class WholeHistoryPreTrainedModel(StateSpacePreTrainedModel):
    """Base of the models that `config.causal=False` lets see the whole history at every position."""

    config: WholeHistoryConfig

    def _check_labels(self, labels: Tensor, attention_mask: Tensor) -> None:
        if self.config.causal or torch.compiler.is_compiling():
            return
        is_last = attention_mask.cumsum(dim=1) == attention_mask.sum(dim=1, keepdim=True)
        if ((labels != -100) & ~is_last).any():
            raise ValueError(
                "`labels` must be -100 everywhere but at the last item of each history: with `causal=False` the "
                "positions before it have seen the items that they would have to predict. Keep only the last label, "
                "or configure the model with `causal=True`."
            )

    @property
    def longest(self) -> int:
        """To how many positions `causal=False` pads each history."""
        assert self.config.max_position_embeddings is not None  # the configuration has checked it
        return self.config.max_position_embeddings
