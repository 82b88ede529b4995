"""What is recommended, whether right or not: how much of the catalog, and how far from what everybody knows."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def catalog_coverage(recommended: ArrayLike, n_items: int, k: int | None = None) -> float:
    r"""
    Return coverage@k, the share of the catalog that is recommended to at least one user (in [0, 1]).

    "Aggregate diversity" over the size of the catalog (Adomavicius and Kwon 2012,
    https://doi.org/10.1109/TKDE.2011.15). It grows with the number of users: compare models on the same ones.

    Args:
        recommended (array of shape `(b, K)`): Rows recommended to each user, best first; 0 where there is none.
        n_items (`int`): Items of the catalog.
        k (`int`, *optional*): How many of each list count; all by default.

    Raises:
        ValueError: if a list is shorter than `k`, or a row is outside the catalog.

    Example:

    ```python
    >>> catalog_coverage([[1, 2], [1, 3]], n_items=10)
    0.3
    ```
    """
    rows = _first(recommended, n_items + 1, k)
    return len(np.unique(rows[rows > 0])) / n_items


def novelty(recommended: ArrayLike, item_counts: ArrayLike, k: int | None = None) -> float:
    r"""
    Return novelty@k, the mean self-information of the recommended items in bits.

    $$-\frac{1}{b} \sum_u \frac{1}{|R_u|} \sum_{i \in R_u} \log_2 p(i)$$

    with `p(i)` the share of the training interactions that item i has: the "free discovery" of Vargas and Castells
    2011 (https://doi.org/10.1145/2043932.2043955), without their discounts by rank and relevance. Others take the
    share of the users for `p(i)`, which is larger: such numbers are lower. An item without interactions counts as if
    it had one.

    Args:
        recommended (array of shape `(b, K)`): Rows recommended to each user, best first; 0 where there is none.
        item_counts (array of shape `(v,)`): Interactions of each row in training; row 0 is padding.
        k (`int`, *optional*): How many of each list count; all by default.

    Raises:
        ValueError: if a list is shorter than `k` or empty, a row is outside the catalog, or nothing was counted.

    Example:

    ```python
    >>> novelty([[1, 2]], item_counts=[0, 4, 2, 2])  # (-log2(1 / 2) - log2(1 / 4)) / 2
    1.5
    ```
    """
    counts = np.asarray(item_counts, dtype=np.float64)
    if counts.ndim != 1 or not (np.isfinite(counts).all() and (counts >= 0).all() and counts.sum() > 0):
        raise ValueError("`item_counts` must be finite, not negative, and not all 0: count the training events.")
    rows = _first(recommended, len(counts), k)
    is_item = rows > 0
    if not is_item.any(axis=1).all():
        user = int(np.flatnonzero(~is_item.any(axis=1))[0])
        raise ValueError(f"`recommended` must have an item for every user, row {user} has none. Leave such users out.")
    bits = -np.log2(np.maximum(counts, 1) / counts.sum())
    of_user = np.where(is_item, bits[rows], 0.0).sum(axis=1) / is_item.sum(axis=1)
    return float(of_user.mean())


def _first(recommended: ArrayLike, n_rows: int, k: int | None) -> NDArray[np.int64]:
    rows = np.asarray(recommended, dtype=np.int64)
    if rows.ndim != 2 or rows.size == 0:
        raise ValueError(f"`recommended` must hold a list of rows for each user, got shape {rows.shape}.")
    if rows.min() < 0 or rows.max() >= n_rows:
        wrong = rows.min() if rows.min() < 0 else rows.max()
        raise ValueError(f"`recommended` must be rows of the catalog, 0 to {n_rows - 1}, got {wrong}.")
    if k is not None and not 1 <= k <= rows.shape[1]:
        raise ValueError(f"`k` must be between 1 and the {rows.shape[1]} items of each list, got {k}.")
    return rows[:, :k]
