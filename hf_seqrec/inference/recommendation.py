"""What a recommender answers: items with scores and titles, and where they came from."""

from itertools import chain, islice
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from transformers.utils import logging

from ..data.catalog import Catalog

logger = logging.get_logger(__name__)

Rows = npt.NDArray[np.int64]
Source = Literal["model", "popularity"]


class Recommendation(NamedTuple):
    r"""
    One recommended item.

    Fields:
        item_id (`str`): Raw id.
        score (`float`): The model's score; of popular items, their interactions in the log.
        title (`str`): What to show; the raw id where the catalog has no title.
    """

    item_id: str
    score: float
    title: str


class Answer(NamedTuple):
    r"""
    What is recommended to one user, and what it was made from.

    Fields:
        recommendations (`list[Recommendation]`): Best first.
        unknown_items (`int`): How many items of the history the catalog does not have; they were left out.
        source (`str`): `"model"`, or `"popularity"` where nothing was left to encode, so these are the most popular
            items.
        unknown_candidates (`int`): How many of the candidates the catalog does not have; they were left out.
    """

    recommendations: list[Recommendation]
    unknown_items: int
    source: Source
    unknown_candidates: int = 0

    @property
    def is_popularity(self) -> bool:
        """Whether these are the most popular items."""
        return self.source == "popularity"


def warn_about(answer: Answer, n_items: int, n_candidates: int = 0) -> None:
    """Warn about what was left out of a history and of the candidates, and that nothing was left of the history."""
    if answer.unknown_candidates:
        logger.warning(
            f"{answer.unknown_candidates} of {n_candidates} candidates are not in this model's catalog and were left "
            "out."
        )
    warn_about_unknown_items(answer.unknown_items, n_items)
    if answer.is_popularity:
        reason = "the history is empty" if not n_items else "the history has no item of this model's catalog"
        logger.warning(f"Recommending the most popular items: {reason}.")


def warn_about_unknown_items(unknown_items: int, n_items: int) -> None:
    """Warn about how many of the items were left out because the catalog does not have them."""
    if unknown_items:
        logger.warning(f"{unknown_items} of {n_items} items are not in this model's catalog and were left out.")


def check_top_k(top_k: int, n_items: int) -> None:
    """Refuse a `top_k` that is not an integer, or not in 1..n_items."""
    if not isinstance(top_k, int | np.integer) or isinstance(top_k, bool):
        raise TypeError(f"`top_k` must be an integer, got {top_k!r} of type {type(top_k).__name__}.")
    if not 1 <= top_k <= n_items:
        raise ValueError(f"`top_k` must be between 1 and the catalog's {n_items} items, got {top_k}.")


def describe_many(catalog: Catalog, rows: list[list[int]], scores: list[list[float]]) -> list[list[Recommendation]]:
    """Name the catalog rows of many users, each with as many as it has: one look into the catalog for all."""
    all_rows = list(chain.from_iterable(rows))
    named = zip(catalog.decode(all_rows), chain.from_iterable(scores), catalog.describe(all_rows), strict=True)
    described = (Recommendation(item_id, float(score), title) for item_id, score, title in named)
    return [list(islice(described, len(user_rows))) for user_rows in rows]
