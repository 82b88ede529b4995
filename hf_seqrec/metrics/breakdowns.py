"""For whom a model ranks well: metrics of users with short and long histories, of popular and rare targets."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .ranking import CUT_OFFS, ranking_metrics

POPULARITY_GROUPS = ("head", "mid", "tail")


class Groups(NamedTuple):
    """
    Which group each user is in.

    Fields:
        names: Of the groups, in order.
        of_user (`(b,)` int64): Position of each user's group in `names`.
    """

    names: list[str]
    of_user: NDArray[np.int64]


def groups_by_length(lengths: ArrayLike, edges: Sequence[int] | None = None) -> Groups:
    r"""
    Group users by the length of their histories.

    Groups are named by the shortest and the longest history they could hold: `"3-9"`, `"10-49"`, `"50+"`.

    Args:
        lengths (array of shape `(b,)`): Events of each user's history.
        edges (sequence of `int`, *optional*): Where a new group begins, rising: `(10, 50)` makes the three groups
            above. The quartiles of `lengths` by default.

    Raises:
        ValueError: if there are no lengths, or `edges` do not rise.

    Example:

    ```python
    >>> groups_by_length([3, 9, 10, 80], edges=[10, 50])
    Groups(names=['3-9', '10-49', '50+'], of_user=array([0, 0, 1, 2]))
    ```
    """
    checked = np.asarray(lengths)
    if checked.ndim != 1 or len(checked) == 0:
        raise ValueError(f"`lengths` must hold the length of each user's history, got shape {checked.shape}.")
    shortest = int(checked.min())
    if edges is None:
        # Many equal lengths make quartiles coincide, or begin with the shortest length: fewer groups then.
        quartiles = np.unique(np.quantile(checked, [0.25, 0.5, 0.75], method="higher"))
        edges = [int(edge) for edge in quartiles if edge > shortest]
    elif any(low >= high for low, high in itertools.pairwise(edges)):
        raise ValueError(f"`edges` must rise, got {list(edges)}.")
    begins = [min(shortest, edges[0] - 1) if edges else shortest, *edges]
    names = [f"{low}-{high - 1}" if low < high - 1 else f"{low}" for low, high in itertools.pairwise(begins)]
    return Groups([*names, f"{begins[-1]}+"], np.searchsorted(edges, checked, side="right").astype(np.int64))


def groups_by_popularity(
    targets: ArrayLike, item_counts: ArrayLike, shares: tuple[float, float] = (1 / 3, 2 / 3)
) -> Groups:
    r"""
    Group users by the popularity of their held-out item: `"head"`, `"mid"` and `"tail"`.

    Items are lined up by their interactions, most first. Those with which the first third of all interactions is
    reached are the head, those of the second third mid, the others the tail; items without interactions are in the
    tail. Items of equal counts stay together.

    Args:
        targets (array of shape `(b,)`): Row of each user's held-out item.
        item_counts (array of shape `(v,)`): Interactions of each row in training; 0 for the padding row.
        shares (`tuple[float, float]`, *optional*, defaults to `(1/3, 2/3)`): Shares of the interactions, in (0, 1), at
            which mid and tail begin.

    Raises:
        ValueError: if `shares` do not rise, there are no interactions, or a target is outside the catalog.

    Example:

    ```python
    >>> groups_by_popularity([1, 2, 3], item_counts=[0, 6, 3, 1])  # shares before each item: 0, 0.6, 0.9
    Groups(names=['head', 'mid', 'tail'], of_user=array([0, 1, 2]))
    ```
    """
    counts = np.asarray(item_counts, dtype=np.float64)
    rows = np.asarray(targets, dtype=np.int64)
    if not 0.0 < shares[0] < shares[1] < 1.0:
        raise ValueError(f"`shares` must be two rising numbers in (0, 1), got {shares}.")
    if not (np.isfinite(counts).all() and (counts >= 0).all() and counts.sum() > 0):
        raise ValueError("`item_counts` must be finite, not negative, and not all 0: count the training events.")
    if len(rows) and (rows.min() < 1 or rows.max() >= len(counts)):
        wrong = rows.min() if rows.min() < 1 else rows.max()
        raise ValueError(f"`targets` must be item rows in 1 to {len(counts) - 1}, got {wrong}.")
    rising = np.sort(counts)
    reached = np.concatenate([[0.0], np.cumsum(rising[::-1])])
    n_more_popular = len(counts) - np.searchsorted(rising, counts[rows], side="right")
    share_before = reached[n_more_popular] / counts.sum()
    return Groups(list(POPULARITY_GROUPS), np.searchsorted(shares, share_before, side="right").astype(np.int64))


def grouped_metrics(
    ranks: ArrayLike, groups: Groups, k: int | Sequence[int] = CUT_OFFS
) -> dict[str, dict[str, float]]:
    r"""
    Return the metrics of each group with the number of its users, as `{"head": {"n_users": 12, "hr@1": ...}, ...}`.

    Groups without users are left out.

    Args:
        ranks (array of shape `(b,)`): Rank of each user's held-out item, from 0.
        groups ([`Groups`]): Which group each user is in.
        k (`int` or sequence of `int`, *optional*, defaults to `(1, 5, 10, 20)`): Cut-offs.

    Raises:
        ValueError: if there is not one group for each rank, or `ranks` are none.

    Example:

    ```python
    >>> grouped_metrics([0, 9, 0], Groups(["new", "old"], np.array([0, 0, 1])), k=1)["new"]
    {'n_users': 2, 'hr@1': 0.5, 'ndcg@1': 0.5, 'mrr@1': 0.5}
    ```
    """
    all_ranks = np.asarray(ranks)
    if all_ranks.shape != groups.of_user.shape:
        raise ValueError(
            f"`groups` must name a group for each of the {len(all_ranks)} ranks, got {len(groups.of_user)}."
        )
    metrics: dict[str, dict[str, float]] = {}
    for place, name in enumerate(groups.names):
        of_group = all_ranks[groups.of_user == place]
        if len(of_group):
            metrics[name] = {"n_users": len(of_group), **ranking_metrics(of_group, k)}
    return metrics
