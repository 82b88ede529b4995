"""What a recommender answers: items with scores and titles, and where they came from."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from transformers.utils import logging

logger = logging.get_logger(__name__)

Rows = npt.NDArray[np.int64]


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
        is_popularity (`bool`): Nothing was left to encode, so these are the most popular items.
    """

    recommendations: list[Recommendation]
    unknown_items: int
    is_popularity: bool


def warn_of(unknown_items: int, n_items: int, is_popularity: bool) -> None:
    """Say in a warning what was left out of a history, and that nothing was left of it."""
    if unknown_items:
        logger.warning(f"{unknown_items} of {n_items} items are not in this model's catalog and were left out.")
    if is_popularity:
        why = "the history is empty" if not n_items else "the history has no item of this model's catalog"
        logger.warning(f"Recommending the most popular items: {why}.")
