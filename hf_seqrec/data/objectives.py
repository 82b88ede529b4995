"""How batches are made for what a model learns: `config.objective` names it, `OBJECTIVES` knows the collators."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from .cloze import ClozeCollator, ClozeRankingCollator
from .collators import NextItemCollator, RankingCollator
from .splits import HistoryBatch

Collator = Callable[[Sequence[HistoryBatch]], dict[str, Tensor]]


class Collators(NamedTuple):
    """
    What makes the batches of a run.

    Fields:
        training: Histories with labels to learn from.
        ranking: Histories with the held-out item to rank.
    """

    training: Collator
    ranking: Collator


def collators_for(config: Any, max_length: int, window: str = "last", seed: int = 0) -> Collators:
    r"""
    Make the collators for a model.

    Args:
        config ([`SeqRecConfig`]): Its `objective` decides; the objective's own parameters come from it too.
        max_length (`int`): Most positions that the model sees.
        window (`str`, *optional*, defaults to `"last"`): Which part of a longer history is trained on.
        seed (`int`, *optional*, defaults to 0): Of everything random in them.

    Raises:
        ValueError: if the objective is unknown or an argument is out of range.
    """
    if config.objective not in OBJECTIVES:
        raise ValueError(
            f"`config.objective` must be one of {', '.join(OBJECTIVES)}, got {config.objective!r}. "
            "Add its collators to `hf_seqrec.data.objectives.OBJECTIVES`."
        )
    return OBJECTIVES[config.objective](config, max_length, window, seed)


def _next_item(config: Any, max_length: int, window: Any, seed: int) -> Collators:
    return Collators(NextItemCollator(max_length, window, seed), RankingCollator(max_length))


def _last_item(config: Any, max_length: int, window: Any, seed: int) -> Collators:
    return Collators(
        NextItemCollator(max_length, window, seed, train_on="last_position"),
        RankingCollator(max_length),
    )


def _cloze(config: Any, max_length: int, window: Any, seed: int) -> Collators:
    return Collators(
        ClozeCollator(
            max_length, config.mask_row, config.mask_probability, config.mask_last_probability, window, seed
        ),
        ClozeRankingCollator(max_length, config.mask_row),
    )


OBJECTIVES: dict[str, Callable[[Any, int, Any, int], Collators]] = {
    "next_item": _next_item,
    "last_item": _last_item,
    "cloze": _cloze,
}
