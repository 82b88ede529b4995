"""Configuration of BERT4Rec."""

from dataclasses import field
from typing import Any

from huggingface_hub.dataclasses import strict

from .configuration_seqrec import SeqRecConfig


@strict
class BERT4RecConfig(SeqRecConfig):
    r"""
    Configuration of [`BERT4Rec`]. Defaults are those of the authors' `bert_config_ml-1m_64.json` (Sun et al. 2019,
    https://github.com/FeiSun/BERT4Rec).

    Args:
        vocab_size (`int`, *optional*, defaults to 3418):
            Rows of the item embedding: padding, the items, and last the mask row, so `n_items + 2`.
        num_attention_heads (`int`, *optional*, defaults to 2):
            Heads of each attention; they divide `hidden_size`.
        attention_probs_dropout_prob (`float`, *optional*, defaults to 0.2):
            Dropout rate of the attention weights, in [0, 1).
        hidden_act (`str`, *optional*, defaults to `"gelu"`):
            Activation of the feed-forward network and of the transform before the scores.
        intermediate_size (`int`, *optional*):
            Width of the feed-forward network; `None` gives `4 * hidden_size`.
        max_position_embeddings (`int`, *optional*, defaults to 200):
            Longest history, the mask that asks for the next item included.
        mask_probability (`float`, *optional*, defaults to 0.2):
            Share of a training history's items that are masked, in (0, 1); at least one is. The paper's best rate for
            MovieLens-1M (Section 4.6).
        mask_last_probability (`float`, *optional*, defaults to 1/11):
            How often only the last item of a training history is masked, in [0, 1]. The authors' data has one such
            history with every ten others.

    Example:

    ```python
    >>> from hf_seqrec import BERT4Rec, BERT4RecConfig

    >>> model = BERT4Rec(BERT4RecConfig(vocab_size=BERT4RecConfig.vocab_size_for(1000)))
    ```
    """

    model_type = "bert4rec"
    # Padding, row 0, and the mask, the last row.
    n_special_rows = 2

    vocab_size: int = field(default=3418, metadata={"in_recipes": False})
    num_hidden_layers: int = 2
    num_attention_heads: int = 2
    attention_probs_dropout_prob: int | float = field(default=0.2, metadata={"free_in_fine_tuning": True})
    hidden_act: str = "gelu"
    intermediate_size: int | None = None
    max_position_embeddings: int = 200
    mask_probability: int | float = field(default=0.2, metadata={"free_in_fine_tuning": True})
    mask_last_probability: int | float = field(default=1 / 11, metadata={"free_in_fine_tuning": True})

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self._check_attention()
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        if self.intermediate_size < 1:
            raise ValueError(f"`intermediate_size` must be at least 1, got {self.intermediate_size}.")
        if self.max_position_embeddings < 2:
            raise ValueError(
                "`max_position_embeddings` must be at least 2, an item and the mask behind it, "
                f"got {self.max_position_embeddings}."
            )
        if not 0.0 < self.mask_probability < 1.0:
            raise ValueError(f"`mask_probability` must be in (0, 1), got {self.mask_probability}.")
        if not 0.0 <= self.mask_last_probability <= 1.0:
            raise ValueError(f"`mask_last_probability` must be in [0, 1], got {self.mask_last_probability}.")

    @property
    def mask_row(self) -> int:
        """Row of the item embedding that stands for a hidden item."""
        return self.vocab_size - 1

    @property
    def objective(self) -> str:
        """What the model learns: masked items from both sides."""
        return "cloze"

    @property
    def stateless_because(self) -> str | None:
        """Why no state can be carried from one call to the next; `None` where it can."""
        return "BERT4Rec looks both ways: with every new item, what it makes of all items before it changes"
