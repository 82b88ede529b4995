"""Configuration of SASRec."""

from dataclasses import field
from typing import Any, Literal

from huggingface_hub.dataclasses import strict

from .configuration_seqrec import SeqRecConfig


@strict
class SASRecConfig(SeqRecConfig):
    r"""
    Configuration of [`SASRec`]. Defaults are the paper's for MovieLens-1M (Kang and McAuley 2018,
    https://arxiv.org/abs/1808.09781, Section IV.D), at this package's width.

    Args:
        num_attention_heads (`int`, *optional*, defaults to 1):
            Heads of each attention; they divide `hidden_size`.
        attention_probs_dropout_prob (`float`, *optional*, defaults to 0.2):
            Dropout rate of the attention weights, in [0, 1).
        hidden_act (`str`, *optional*, defaults to `"relu"`):
            Activation of the feed-forward network.
        normalization (`"query"`, `"pre"` or `"post"`, *optional*, defaults to `"query"`):
            Where a block normalises, see [`SASRecLayer`]. `"query"` is the paper's code, and pmixer's until May 2025;
            since then pmixer's has `"post"`, and `"pre"` with `--norm_first`.
        position_order (`"first"` or `"last"`, *optional*, defaults to `"first"`):
            `"first"` counts positions from the first item of a history, so that a state can be carried. `"last"` does
            as the reference code, which pads on the left: a history's last item always has the last of
            `max_position_embeddings` positions, so that every new item moves all the others, and no state is carried.
        attend_to_padding (`bool`, *optional*, defaults to `False`):
            As pmixer's code: the items also attend to the padding that fills a history up to
            `max_position_embeddings`. Needs `position_order="last"`. For checkpoints trained so.

    Example:

    ```python
    >>> from hf_seqrec import SASRec, SASRecConfig

    >>> model = SASRec(SASRecConfig(vocab_size=1001, max_position_embeddings=50))
    ```
    """

    model_type = "sasrec"

    num_hidden_layers: int = 2
    num_attention_heads: int = 1
    attention_probs_dropout_prob: int | float = field(default=0.2, metadata={"free_in_fine_tuning": True})
    hidden_act: str = "relu"
    max_position_embeddings: int = 200
    # Of both reference codes.
    layer_norm_eps: int | float = 1e-8
    normalization: Literal["query", "pre", "post"] = "query"
    position_order: Literal["first", "last"] = "first"
    attend_to_padding: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self._check_attention()
        if self.attend_to_padding and self.position_order != "last":
            raise ValueError(
                '`attend_to_padding=True` needs `position_order="last"`: padding is only ever seen where it stands '
                "before the history, as in the reference code."
            )

    @property
    def stateless_because(self) -> str | None:
        """Why no state can be carried from one call to the next; `None` where it can."""
        if self.position_order == "first":
            return None
        return 'with `position_order="last"` every new item moves the positions of all items before it'
