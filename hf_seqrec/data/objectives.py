"""How batches are made for what a model learns: `config.objective` names it, `OBJECTIVES` knows the collators."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from .collators import ClozeCollator, NextItemCollator, RankingCollator
from .histories import HistoryBatch

Collator = Callable[[Sequence[HistoryBatch]], dict[str, Tensor]]

TRAIN_ON = ("every_position", "last_position", "every_prefix")


class Collators(NamedTuple):
    """
    What makes the batches of a run.

    Fields:
        training: Histories with labels to learn from.
        ranking: Histories with the held-out item to rank.
    """

    training: Collator
    ranking: Collator


class Objective(NamedTuple):
    """
    Something that a model learns.

    Fields:
        collators: Makes the collators of a configuration, `max_length`, window, seed and one of `train_on` or `None`.
        train_on: Where in a history it can be learned, the first by default; empty where there is no choice.
        why: Why not elsewhere.
    """

    collators: Callable[[Any, int, Any, int, str | None], Collators]
    train_on: tuple[str, ...] = TRAIN_ON
    why: str = ""


def collators_for(
    config: Any, max_length: int, window: str = "last", seed: int = 0, train_on: str | None = None
) -> Collators:
    r"""
    Make the collators for a model.

    Args:
        config ([`SeqRecConfig`]): Its `objective` decides; the objective's own parameters come from it too.
        max_length (`int`): Most positions that the model sees.
        window (`str`, *optional*, defaults to `"last"`): Which part of a longer history is trained on.
        seed (`int`, *optional*, defaults to 0): Of everything random in them.
        train_on (`str`, *optional*):
            Where a next item is asked for: `"every_position"`, `"last_position"`, or `"every_prefix"`, which is the
            last position of the samples that [`every_prefix`] makes. By default what the objective does.

    Raises:
        ValueError: if the objective is unknown or cannot be learned there, or an argument is out of range.
    """
    if config.objective not in OBJECTIVES:
        raise ValueError(
            f"`config.objective` must be one of {', '.join(OBJECTIVES)}, got {config.objective!r}. "
            "Add its collators to `hf_seqrec.data.objectives.OBJECTIVES`."
        )
    objective = OBJECTIVES[config.objective]
    if train_on is not None and train_on not in objective.train_on:
        allowed = " or ".join((*map(repr, objective.train_on), "left out"))
        raise ValueError(f"`train_on` must be {allowed} for this model, got {train_on!r}: {objective.why}")
    return objective.collators(config, max_length, window, seed, train_on)


def _next_item(config: Any, max_length: int, window: Any, seed: int, train_on: str | None) -> Collators:
    at_every_position = train_on in (None, "every_position")
    return Collators(
        NextItemCollator(
            max_length, window, seed, train_on="every_position" if at_every_position else "last_position"
        ),
        RankingCollator(max_length),
    )


def _last_item(config: Any, max_length: int, window: Any, seed: int, train_on: str | None) -> Collators:
    return _next_item(config, max_length, window, seed, "last_position")


def _cloze(config: Any, max_length: int, window: Any, seed: int, train_on: str | None) -> Collators:
    return Collators(
        ClozeCollator(
            max_length, config.mask_row, config.mask_probability, config.mask_last_probability, window, seed
        ),
        # The model appends the mask, which takes a place.
        RankingCollator(max_length - 1),
    )


OBJECTIVES: dict[str, Objective] = {
    "next_item": Objective(_next_item, why="there are no other places."),
    "last_item": Objective(
        _last_item,
        ("last_position", "every_prefix"),
        why="with `causal=False` the positions before the last have seen the items that they would have to predict.",
    ),
    "cloze": Objective(
        _cloze,
        (),
        why="it learns by filling in masked items. Set `mask_probability` and `mask_last_probability` instead.",
    ),
}
