"""Which items may be recommended: raw ids of candidates and of excluded items, as rows of the catalog."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..data.catalog import Catalog
from .raw_ids import raw_ids
from .recommendation import Recommendation, Rows, describe_many

_NO_ROWS: Rows = np.empty(0, np.int64)


class Filters(NamedTuple):
    r"""
    What may be recommended to the users of one call.

    Fields:
        candidate_rows (`(c,)` int64 or `None`): Recommend only these rows, ascending; `None` for the whole catalog.
        excluded_rows (`(e,)` int64): Never recommend these rows, ascending; none of them is a candidate.
        unknown_candidates (`int`): How many of the candidates the catalog does not have.
    """

    candidate_rows: Rows | None = None
    excluded_rows: Rows = _NO_ROWS
    unknown_candidates: int = 0

    def is_allowed(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Tell which of the rows `(n,)` may be recommended."""
        allowed = ~np.isin(rows, self.excluded_rows)
        return allowed if self.candidate_rows is None else allowed & np.isin(rows, self.candidate_rows)


def make_filters(
    catalog: Catalog, candidates: Iterable[str | int] | None = None, exclude: Iterable[str | int] | None = None
) -> Filters:
    r"""
    Look up candidates and excluded items.

    Args:
        catalog ([`Catalog`]): The model's.
        candidates (`list[str | int]`, *optional*): Recommend only from these raw ids.
        exclude (`list[str | int]`, *optional*): Never recommend these raw ids. Those that the catalog does not have
            could not be recommended anyway.

    Raises:
        TypeError: if these are no lists of raw ids.
        ValueError: if the catalog has none of the candidates.
    """
    excluded = _NO_ROWS
    if exclude is not None:
        excluded = np.unique(catalog.encode_known(raw_ids(exclude, "exclude"))[0])
    if candidates is None:
        return Filters(excluded_rows=excluded)
    candidates = raw_ids(candidates, "candidates")
    rows, unknown = catalog.encode_known(candidates)
    if not len(rows):
        raise ValueError(
            f"`candidates` must be items of this model's catalog of {catalog.n_items:,} items, none of the "
            f"{len(candidates)} given is. Pass raw item ids, or leave `candidates` out to choose from all."
        )
    return Filters(np.setdiff1d(rows, excluded), unknown_candidates=unknown)


def most_popular(catalog: Catalog, top_k: int, filters: Filters) -> list[Recommendation]:
    """Return the allowed items with the most interactions in the log, at most `top_k`; counts are the scores."""
    rows = catalog.rows_by_popularity
    if filters.candidate_rows is None:
        # Among so many, `top_k` are allowed.
        rows = rows[: top_k + len(filters.excluded_rows)]
    rows = rows[filters.is_allowed(rows)][:top_k]
    return describe_many(catalog, [rows.tolist()], [catalog.counts[rows - 1].tolist()])[0]
