"""Configuration of GRU4Rec."""

from dataclasses import field
from typing import Any

from huggingface_hub.dataclasses import strict

from .configuration_seqrec import SeqRecConfig


@strict
class GRU4RecConfig(SeqRecConfig):
    r"""
    Configuration of [`GRU4Rec`]. Defaults are those of RecBole, whose numbers are the ones that later papers compare
    with.

    Args:
        gru_hidden_size (`int`, *optional*, defaults to 128):
            Width of the recurrent state; a linear layer maps it back to `hidden_size`.
        hidden_dropout_prob (`float`, *optional*, defaults to 0.3):
            Dropout rate of the item embeddings, in [0, 1).

    Example:

    ```python
    >>> from hf_seqrec import GRU4Rec, GRU4RecConfig

    >>> model = GRU4Rec(GRU4RecConfig(vocab_size=1001))
    ```
    """

    model_type = "gru4rec"

    gru_hidden_size: int = 128
    hidden_dropout_prob: int | float = field(default=0.3, metadata={"free_in_fine_tuning": True})

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.gru_hidden_size < 1:
            raise ValueError(f"`gru_hidden_size` must be at least 1, got {self.gru_hidden_size}.")
