"""
From scores to ranks, and from ranks to HR@k, NDCG@k and MRR@k. With one held-out item per user each metric is a mean
over users of a gain that depends on nothing but that item's rank.

Ranks start at 0. Ties count against the model: a model that gives every item the same score ranks the target last, not
first. NaN has no rank and raises.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

CUT_OFFS = (1, 5, 10, 20)


def hit_rate(ranks: ArrayLike, k: int) -> float:
    r"""
    Return HR@k, the share of users whose held-out item is among the first `k` (in [0, 1]).

    With one relevant item this is also Recall@k:

    $$\mathrm{HR}@k = \frac{1}{b} \sum_i [\mathrm{rank}_i < k]$$

    Args:
        ranks (array of shape `(b,)`): Rank of each user's held-out item, from 0.
        k (`int`): Cut-off.

    Raises:
        ValueError: if `k` is below 1, or `ranks` is empty, negative, NaN or not whole.

    Example:

    ```python
    >>> hit_rate([0, 2, 9], k=3)  # hit, hit, miss: 2 / 3
    0.6666666666666666
    ```
    """
    return float(_gains("hr", _checked_ranks(ranks), _checked_cut_off(k)).mean())


def ndcg(ranks: ArrayLike, k: int) -> float:
    r"""
    Return NDCG@k, the normalised discounted cumulative gain (in [0, 1]).

    Järvelin and Kekäläinen 2002 (https://doi.org/10.1145/582415.582418) with the base 2 logarithm. One relevant item
    makes the ideal gain 1, so that

    $$\mathrm{NDCG}@k = \frac{1}{b} \sum_i \frac{[\mathrm{rank}_i < k]}{\log_2(\mathrm{rank}_i + 2)}$$

    Args:
        ranks (array of shape `(b,)`): Rank of each user's held-out item, from 0.
        k (`int`): Cut-off.

    Raises:
        ValueError: if `k` is below 1, or `ranks` is empty, negative, NaN or not whole.

    Example:

    ```python
    >>> ndcg([0, 2, 9], k=3)  # (1 / log2(2) + 1 / log2(4) + 0) / 3
    0.5
    ```
    """
    return float(_gains("ndcg", _checked_ranks(ranks), _checked_cut_off(k)).mean())


def mrr(ranks: ArrayLike, k: int) -> float:
    r"""
    Return MRR@k, the mean reciprocal rank, where an item beyond the first `k` gives 0 (in [0, 1]).

    $$\mathrm{MRR}@k = \frac{1}{b} \sum_i \frac{[\mathrm{rank}_i < k]}{\mathrm{rank}_i + 1}$$

    Args:
        ranks (array of shape `(b,)`): Rank of each user's held-out item, from 0.
        k (`int`): Cut-off.

    Raises:
        ValueError: if `k` is below 1, or `ranks` is empty, negative, NaN or not whole.

    Example:

    ```python
    >>> mrr([0, 1, 9], k=3)  # (1 / 1 + 1 / 2 + 0) / 3
    0.5
    ```
    """
    return float(_gains("mrr", _checked_ranks(ranks), _checked_cut_off(k)).mean())


def ranking_metrics(ranks: ArrayLike, k: int | Sequence[int] = CUT_OFFS) -> dict[str, float]:
    r"""
    Return HR, NDCG and MRR at every cut-off, as `{"hr@1": ..., "ndcg@1": ..., "mrr@1": ..., "hr@5": ...}`.

    Args:
        ranks (array of shape `(b,)`): Rank of each user's held-out item, from 0.
        k (`int` or sequence of `int`, *optional*, defaults to `(1, 5, 10, 20)`): Cut-offs.

    Raises:
        ValueError: if a cut-off is below 1 or there is none, or `ranks` is empty, negative, NaN or not whole.

    Example:

    ```python
    >>> ranking_metrics([0, 2], k=1)
    {'hr@1': 0.5, 'ndcg@1': 0.5, 'mrr@1': 0.5}
    ```
    """
    return {name: float(gains.mean()) for name, gains in _named_gains(ranks, k)}


def ranking_values(ranks: ArrayLike, k: int | Sequence[int] = CUT_OFFS) -> dict[str, NDArray[np.float64]]:
    r"""
    Return what each user adds to each metric, each `(b,)`: the means are [`ranking_metrics`].

    For confidence intervals and paired tests between models. Arguments and errors are those of [`ranking_metrics`].

    Example:

    ```python
    >>> ranking_values([0, 2], k=3)["ndcg@3"]
    array([1. , 0.5])
    ```
    """
    return dict(_named_gains(ranks, k))


def ranks_from_scores(
    scores: ArrayLike,
    targets: ArrayLike,
    seen: ArrayLike | Sequence[Sequence[int]] | None = None,
    padding_row: int | None = 0,
) -> NDArray[np.int64]:
    r"""
    Return the rank of each user's target in the whole catalog, `(b,)`, from 0.

    The rank is the number of other rows that compete and score at least as high as the target. The padding row and the
    user's seen items do not compete; the target always takes part, even when it is among the seen.

    Args:
        scores (array of shape `(b, v)`): Score of every catalog row.
        targets (array of shape `(b,)`): Row of each user's held-out item.
        seen (array of shape `(b, s)`, or one sequence of rows per user, *optional*): Rows of each user's history. An
            array is padded with `padding_row`. Nothing is excluded by default.
        padding_row (`int`, *optional*, defaults to 0): Row that is no item; `None` where every row is one.

    Raises:
        ValueError: if a score is NaN (its row is named), if the shapes do not fit together, or if a target or a seen
            row is outside the catalog.
        TypeError: if targets or seen rows are not integers.

    Example:

    ```python
    >>> scores = [[9.0, 0.1, 0.4, 0.3, 0.4]]
    >>> ranks_from_scores(scores, targets=[3])  # rows 2 and 4 score higher; row 0 is padding
    array([2])
    >>> ranks_from_scores(scores, targets=[3], seen=[[4]])
    array([1])
    >>> ranks_from_scores(scores, targets=[2])  # row 4 ties, which counts against the model
    array([1])
    ```
    """
    scores = _checked_scores(scores)
    n_users, n_rows = scores.shape
    targets = _checked_rows("targets", np.asarray(targets), n_rows)
    if targets.shape != (n_users,):
        raise ValueError(f"`targets` must hold one row for each of the {n_users} users, got shape {targets.shape}.")
    if padding_row is not None and (targets == padding_row).any():
        user = int(np.flatnonzero(targets == padding_row)[0])
        raise ValueError(
            f"`targets` must be items, but row {user} is the padding row {padding_row}. Leave out users without a "
            "held-out item."
        )
    users = np.arange(n_users)
    is_above = scores >= scores[users, targets][:, None]  # [b, v]
    if padding_row is not None:
        is_above[:, padding_row] = False
    if seen is not None:
        seen_users, seen_rows = _flat_seen(seen, n_users)
        is_above[seen_users, _checked_rows("seen", seen_rows, n_rows)] = False
    is_above[users, targets] = False
    return is_above.sum(axis=1, dtype=np.int64)


def ranks_from_candidates(scores: ArrayLike) -> NDArray[np.int64]:
    r"""
    Return the rank of each user's target among its own candidates, `(b,)`, from 0.

    Args:
        scores (array of shape `(b, 1 + n)`): The score of the target, then the scores of its `n` negatives.

    Raises:
        ValueError: if a score is NaN (its row is named), or if there are no negatives.

    Example:

    ```python
    >>> ranks_from_candidates([[0.5, 0.9, 0.5, 0.1]])  # one scores higher, one ties
    array([2])
    ```
    """
    scores = _checked_scores(scores)
    if scores.shape[1] < 2:
        raise ValueError(
            "`scores` must hold the target's score and at least one negative's for each user, got shape "
            f"{scores.shape}. A target alone is always first."
        )
    return (scores[:, 1:] >= scores[:, :1]).sum(axis=1, dtype=np.int64)


def cut_offs_within(n_candidates: int, k: int | Sequence[int] | None = None) -> int | Sequence[int]:
    """
    Return `k`, or the usual cut-offs where it is `None`.

    Raises:
        ValueError: if `k` reaches beyond the candidates: whatever the model, everybody would have a hit.
    """
    if k is not None and np.max(k, initial=0) > n_candidates:
        raise ValueError(
            f"`k` must be at most the {n_candidates} items that are ranked, got {np.max(k)}. Lower `k` or rank more "
            "items."
        )
    return CUT_OFFS if k is None else k


def _named_gains(ranks: ArrayLike, k: int | Sequence[int]) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield one metric at a time, so that means over many users need the memory of one."""
    checked = _checked_ranks(ranks)
    cut_offs = [_checked_cut_off(cut_off) for cut_off in ([k] if np.ndim(k) == 0 else k)]  # type: ignore[union-attr]
    if not cut_offs:
        raise ValueError("`k` must name at least one cut-off, got none.")
    for cut_off in cut_offs:
        for metric in ("hr", "ndcg", "mrr"):
            yield f"{metric}@{cut_off}", _gains(metric, checked, cut_off)


def _gains(metric: str, ranks: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Return what each user adds to `metric` at cut-off `k`; the three docstrings above have the formulas."""
    if metric == "hr":
        gains = np.ones(len(ranks))
    elif metric == "ndcg":
        gains = 1 / np.log2(ranks + 2)
    else:
        gains = 1 / (ranks + 1)
    return np.where(ranks < k, gains, 0.0)


def _checked_cut_off(k: Any) -> int:
    if isinstance(k, bool) or not isinstance(k, int | np.integer):
        raise TypeError(f"`k` must be an integer, got {k!r}.")
    if k < 1:
        raise ValueError(f"`k` must be at least 1, got {k}.")
    return int(k)


def _checked_ranks(ranks: ArrayLike) -> NDArray[np.int64]:
    ranks = np.asarray(ranks)
    if ranks.ndim != 1 or len(ranks) == 0:
        raise ValueError(
            f"`ranks` must hold one rank per user, got shape {ranks.shape}. Is there a user with a held-out item?"
        )
    with np.errstate(invalid="ignore"):
        whole = ranks.astype(np.int64)
    is_wrong = (whole != ranks) | (whole < 0)
    if is_wrong.any():
        user = int(np.flatnonzero(is_wrong)[0])
        raise ValueError(
            f"`ranks` must be whole numbers from 0, got {ranks[user]} at row {user}. Ranks come from "
            "`ranks_from_scores` or a model's own ranking, not from its scores."
        )
    return whole


def _checked_scores(scores: ArrayLike) -> NDArray[np.floating]:
    scores = np.asarray(scores)
    if scores.ndim != 2 or len(scores) == 0:
        raise ValueError(f"`scores` must hold a row of scores for each user, got shape {scores.shape}.")
    if np.issubdtype(scores.dtype, np.floating):
        is_nan = np.isnan(scores).any(axis=1)
        if is_nan.any():
            raise ValueError(
                f"`scores` must not contain NaN, found in row {int(np.flatnonzero(is_nan)[0])} "
                f"({int(is_nan.sum())} of {len(scores)} rows). The weights are damaged or the training diverged: "
                "check the loss and lower the learning rate."
            )
    return scores


def _checked_rows(name: str, rows: NDArray[Any], n_rows: int) -> NDArray[np.integer]:
    if not np.issubdtype(rows.dtype, np.integer):
        raise TypeError(f"`{name}` must be catalog rows (integers), got {rows.dtype}.")
    is_outside = (rows < 0) | (rows >= n_rows)
    if is_outside.any():
        raise ValueError(
            f"`{name}` must be rows of the catalog, 0 to {n_rows - 1}, got {rows[is_outside][0]}. Were the scores "
            "made with another catalog?"
        )
    return rows


def _flat_seen(
    seen: ArrayLike | Sequence[Sequence[int]], n_users: int
) -> tuple[NDArray[np.intp], NDArray[np.integer]]:
    """Return the pairs (user, row) of a padded array or of one sequence per user, as two arrays of equal length."""
    rows = [np.asarray(user_rows) for user_rows in seen]  # type: ignore[union-attr]
    if len(rows) != n_users or any(user_rows.ndim != 1 for user_rows in rows):
        raise ValueError(f"`seen` must hold the rows of each of the {n_users} users, got {len(rows)} entries.")
    lengths = [len(user_rows) for user_rows in rows]
    # An empty list has no integer type of its own.
    filled = [user_rows for user_rows in rows if len(user_rows)] or [np.zeros(0, dtype=np.int64)]
    return np.repeat(np.arange(n_users), lengths), np.concatenate(filled)
