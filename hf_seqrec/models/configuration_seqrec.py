"""Configuration shared by every sequential recommender: the catalog's size and the fields each network has."""

from dataclasses import field
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

# Training losses, and against how many negatives each compares by default: SASRec's one, gSASRec's 256
# (https://arxiv.org/abs/2308.07192), BPR's one. The full softmax takes all items.
DEFAULT_NEGATIVES = {"full_softmax": None, "sampled_softmax": 512, "bce": 1, "gbce": 256, "bpr": 1}


@strict
class SeqRecConfig(PreTrainedConfig):
    r"""
    Base of all configurations. Each model's own configuration adds the fields of its network.

    A field's metadata say how a run may set it: `in_recipes=False` is not an argument of a run (it follows from the
    catalog, from the training arguments or from how the model is used); no weight depends on what is
    `free_in_fine_tuning`; and what is `of_the_machine` says how to compute, not what, so a resumed run may change it.

    Args:
        vocab_size (`int`, *optional*, defaults to 3417):
            Rows of the item embedding: row 0 is padding, rows `1..n_items` are the items, so `n_items + 1`, and more
            where a model has other special rows: see `vocab_size_for`. The default is MovieLens-1M (3,416 items).
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
        item_loss (`str`, *optional*, defaults to `"full_softmax"`):
            What the model is trained with: `"full_softmax"`, or against sampled negatives `"sampled_softmax"`,
            `"bce"`, `"gbce"` or `"bpr"` (see `sampled_losses`). The arguments of a run decide it.
        num_negatives (`int`, *optional*):
            Negatives of each position; `None` with the full softmax.
        gbce_t (`float`, *optional*, defaults to 0.75):
            Calibration of `"gbce"`, in [0, 1].
        constant_bias (`bool`, *optional*, defaults to `True`):
            Whether `"bce"` and `"gbce"` add a constant to all scores, see [`bce_loss`].
        label_smoothing (`float`, *optional*, defaults to 0.0):
            Share of each target, in [0, 1], that the full softmax spreads over all items in training.
        catalog_fingerprint (`str`, *optional*):
            [`Catalog.fingerprint`] of the catalog whose rows the model knows; `None` where it is not recorded. Another
            catalog is refused.

    Raises:
        ValueError: if a field is out of its range.
    """

    model_type = "seqrec"
    # Rows of the item embedding that are no items: padding, row 0.
    n_special_rows = 1
    # With 0 where the embeddings alone make a model.
    fewest_hidden_layers = 1

    vocab_size: int = field(default=3417, metadata={"in_recipes": False})
    hidden_size: int = 64
    num_hidden_layers: int = 1
    hidden_dropout_prob: int | float = field(default=0.2, metadata={"free_in_fine_tuning": True})
    max_position_embeddings: int | None = None
    initializer_range: int | float = 0.02
    layer_norm_eps: int | float = 1e-12
    item_loss: str = field(default="full_softmax", metadata={"in_recipes": False})
    num_negatives: int | None = field(default=None, metadata={"in_recipes": False})
    gbce_t: int | float = field(default=0.75, metadata={"in_recipes": False})
    constant_bias: bool = field(default=True, metadata={"in_recipes": False})
    label_smoothing: int | float = field(default=0.0, metadata={"in_recipes": False})
    catalog_fingerprint: str | None = field(default=None, metadata={"in_recipes": False})
    pad_token_id: int | None = field(default=0, metadata={"in_recipes": False})
    use_cache: bool = field(default=False, metadata={"in_recipes": False})

    def __post_init__(self, **kwargs: Any) -> None:
        if self.n_items < 1:
            raise ValueError(
                f"`vocab_size` counts {self.n_special_rows} special rows and at least one item, so it must be at "
                f"least {self.n_special_rows + 1}, got {self.vocab_size}. "
                f"Pass `{type(self).__name__}.vocab_size_for(catalog.n_items)`."
            )
        for name, least in (("hidden_size", 1), ("num_hidden_layers", self.fewest_hidden_layers)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)}.")
        if not 0.0 <= self.hidden_dropout_prob < 1.0:
            raise ValueError(f"`hidden_dropout_prob` must be in [0, 1), got {self.hidden_dropout_prob}.")
        if self.max_position_embeddings is not None and self.max_position_embeddings < 1:
            raise ValueError(f"`max_position_embeddings` must be at least 1, got {self.max_position_embeddings}.")
        if self.item_loss not in DEFAULT_NEGATIVES:
            raise ValueError(f"`item_loss` must be one of {', '.join(DEFAULT_NEGATIVES)}, got {self.item_loss!r}.")
        if not 0.0 <= self.gbce_t <= 1.0:
            raise ValueError(f"`gbce_t` must be in [0, 1], got {self.gbce_t}.")
        if not 0.0 <= self.label_smoothing <= 1.0:
            raise ValueError(f"`label_smoothing` must be in [0, 1], got {self.label_smoothing}.")
        if self.pad_token_id != 0:
            raise ValueError(f"`pad_token_id` must be 0, the catalog's padding row, got {self.pad_token_id}.")
        super().__post_init__(**kwargs)

    @classmethod
    def vocab_size_for(cls, n_items: int) -> int:
        """Return the `vocab_size` that a catalog of `n_items` items needs: the items and the model's special rows."""
        return n_items + cls.n_special_rows

    @property
    def n_items(self) -> int:
        """Number of items of the catalog, without padding."""
        return self.vocab_size - self.n_special_rows

    @property
    def objective(self) -> str:
        """What the model learns, which decides how batches are made: a key of `data.objectives.OBJECTIVES`."""
        return "next_item"

    @property
    def stateless_because(self) -> str | None:
        """Why no state can be carried from one call to the next; `None` where it can."""
        return None

    @property
    def note(self) -> str | None:
        """What a card says of this variant of the model; `None` where there is nothing to say."""
        return None

    def _check_attention(self) -> None:
        """Check `num_attention_heads` and `attention_probs_dropout_prob`, for configurations that have them."""
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`num_attention_heads` must divide `hidden_size`, got {self.num_attention_heads} heads and a width "
                f"of {self.hidden_size}."
            )
        if not 0.0 <= self.attention_probs_dropout_prob < 1.0:
            raise ValueError(
                f"`attention_probs_dropout_prob` must be in [0, 1), got {self.attention_probs_dropout_prob}."
            )
