"""Configuration of MLSA4Rec."""

from dataclasses import field
from typing import Any

from huggingface_hub.dataclasses import strict

from .configuration_state_space import WholeHistoryConfig


@strict
class MLSA4RecConfig(WholeHistoryConfig):
    r"""
    Configuration of [`MLSA4Rec`]. Defaults are those of the authors' code (https://github.com/Sujz13/MLSA4Rec).

    `initializer="reference"` does as that code does: embeddings and linear layers are drawn uniformly within
    `1 / sqrt(inputs)`, their biases zero, `dt_proj` included, so that all step sizes start at `softplus(0) = 0.69`.

    Args:
        num_hidden_layers (`int`, *optional*, defaults to 2):
            Number of Mamba layers after the Mamba-LSA module.
        num_interests (`int`, *optional*, defaults to 20):
            Interests into which the history is pooled.
        num_attention_heads (`int`, *optional*, defaults to 8):
            Heads of the attention to the interests; they divide `hidden_size`.
        attention_probs_dropout_prob (`float`, *optional*, defaults to 0.1):
            Dropout rate of the attention weights, in [0, 1).

    Example:

    ```python
    >>> from hf_seqrec import MLSA4Rec, MLSA4RecConfig

    >>> model = MLSA4Rec(MLSA4RecConfig(vocab_size=1001))
    >>> as_published = MLSA4RecConfig(vocab_size=1001, causal=False, max_position_embeddings=50)
    ```
    """

    model_type = "mlsa4rec"

    num_hidden_layers: int = 2
    hidden_dropout_prob: int | float = field(default=0.1, metadata={"free_in_fine_tuning": True})
    num_interests: int = 20
    num_attention_heads: int = 8
    attention_probs_dropout_prob: int | float = field(default=0.1, metadata={"free_in_fine_tuning": True})

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self._check_attention()
        self._check_at_least_one("num_interests")
