"""Configuration of MoEMaTrRec."""

from dataclasses import field
from typing import Any, Literal

from huggingface_hub.dataclasses import strict

from .configuration_state_space import WholeHistoryConfig


@strict
class MoEMaTrRecConfig(WholeHistoryConfig):
    r"""
    Configuration of [`MoEMaTrRec`]. Defaults are those of the code of its proposal
    (https://github.com/alokamgnaneswarasai/MambaRec, class `SASmambaRec`), at this package's width and dropout.

    `initializer="reference"` draws every matrix with Xavier's normal distribution, as that code's script does, those
    of the state space included; but the attention's three projections each by itself, where the code has them in one
    matrix.

    Args:
        gate (`"sequence"`, `"token"` or `"constant"`, *optional*, defaults to `"sequence"`):
            What decides how much of Mamba and how much of the attention an item gets: the mean of the history up to
            it, the item alone, or nothing: two learned scalars, with which the proposal's numbers on LFM-1b were made.
        max_position_embeddings (`int`, *optional*, defaults to 200):
            Longest history that the model can take: it learns an embedding of each position.
        num_attention_heads (`int`, *optional*, defaults to 1):
            Heads of each attention; they divide `hidden_size`.
        attention_probs_dropout_prob (`float`, *optional*, defaults to 0.2):
            Dropout rate of the attention weights, in [0, 1).
        intermediate_size (`int`, *optional*):
            Width of the feed-forward network; `None` gives `4 * hidden_size`.

    Example:

    ```python
    >>> from hf_seqrec import MoEMaTrRec, MoEMaTrRecConfig

    >>> model = MoEMaTrRec(MoEMaTrRecConfig(vocab_size=1001, gate="token"))
    ```
    """

    model_type = "moematrrec"

    gate: Literal["sequence", "token", "constant"] = "sequence"
    max_position_embeddings: int = 200
    num_attention_heads: int = 1
    attention_probs_dropout_prob: int | float = field(default=0.2, metadata={"free_in_fine_tuning": True})
    intermediate_size: int | None = None
    layer_norm_eps: int | float = 1e-6

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self._check_attention()
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        self._check_at_least_one("intermediate_size")

    @property
    def note(self) -> str | None:
        """What a card says of this variant of the model."""
        gates = {
            "sequence": "looks at the mean of the history up to each item, as published",
            "token": "looks at each item alone",
            "constant": "is constant: two learned scalars, as in the proposal's runs on LFM-1b",
        }
        return f"The gate between Mamba and attention {gates[self.gate]} (`gate={self.gate!r}`)."
