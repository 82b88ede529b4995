"""Configuration shared by every sequential recommender: the catalog's size and the fields each network has."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig


@strict
class SeqRecConfig(PreTrainedConfig):
    r"""
    Base of all configurations. Each model's own configuration adds the fields of its network.

    Args:
        vocab_size (`int`, *optional*, defaults to 3417):
            Rows of the item embedding: row 0 is padding, rows `1..n_items` are the items, so `n_items + 1`. The
            default is MovieLens-1M (3,416 items).
        hidden_size (`int`, *optional*, defaults to 64):
            Width `d` of the item embedding and of the encoder's output.
        num_hidden_layers (`int`, *optional*, defaults to 1):
            Number of layers of the encoder.
        hidden_dropout_prob (`float`, *optional*, defaults to 0.2):
            Dropout rate, in [0, 1).
        max_position_embeddings (`int`, *optional*):
            Longest history that the model can take; of longer ones the most recent items are kept. `None` for models
            without positions, which take any length.
        initializer_range (`float`, *optional*, defaults to 0.02):
            Standard deviation of the normal distribution that initialises matrices and embeddings.
        layer_norm_eps (`float`, *optional*, defaults to 1e-12):
            Epsilon of the layer normalisations.

    Raises:
        ValueError: if a field is out of its range.
    """

    model_type = "seqrec"

    vocab_size: int = 3417
    hidden_size: int = 64
    num_hidden_layers: int = 1
    hidden_dropout_prob: float = 0.2
    max_position_embeddings: int | None = None
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    use_cache: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if self.vocab_size < 2:
            raise ValueError(
                f"`vocab_size` counts the padding row and at least one item, so it must be at least 2, "
                f"got {self.vocab_size}. Pass `catalog.vocab_size`."
            )
        for name in ("hidden_size", "num_hidden_layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if not 0.0 <= self.hidden_dropout_prob < 1.0:
            raise ValueError(f"`hidden_dropout_prob` must be in [0, 1), got {self.hidden_dropout_prob}.")
        if self.max_position_embeddings is not None and self.max_position_embeddings < 1:
            raise ValueError(f"`max_position_embeddings` must be at least 1, got {self.max_position_embeddings}.")
        if self.pad_token_id != 0:
            raise ValueError(f"`pad_token_id` must be 0, the catalog's padding row, got {self.pad_token_id}.")
        super().__post_init__(**kwargs)

    @property
    def n_items(self) -> int:
        """Number of items of the catalog, without the padding row."""
        return self.vocab_size - 1
