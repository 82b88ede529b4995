"""
Negatives for sampled ranking, drawn as the protocol promises: without replacement, never the target, never anything of
the user's history, and the same ones for every model that is compared.

Sampled metrics are kept to compare with papers that use them; they need not order models as the full ranking does
(Krichene and Rendle 2020, https://doi.org/10.1145/3394486.3403226).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Draws with replacement before a popularity sample is finished exactly; see `_by_popularity`.
_ROUNDS = 4


class PopularityWeights(NamedTuple):
    r"""
    What drawing by popularity needs of a catalog, computed once by [`popularity_weights`].

    Fields:
        weights (`(vocab_size,)`): Of each row; 0 for what is never drawn.
        cumulative (`(vocab_size,)`): Their running sum.
        n_drawn (`int`): How many rows can be drawn.
    """

    weights: NDArray[np.float64]
    cumulative: NDArray[np.float64]
    n_drawn: int


def popularity_weights(item_counts: ArrayLike, vocab_size: int, alpha: float = 1.0) -> PopularityWeights:
    r"""
    Return the weights by which `draw_negatives` draws, for many calls of it over a large catalog.

    Raises:
        ValueError: if the counts are not those of a catalog of `vocab_size` rows.
    """
    counts = np.asarray(item_counts, dtype=np.float64)
    if counts.shape != (vocab_size,):
        raise ValueError(f"`item_counts` must hold one count for each of {vocab_size} rows, got shape {counts.shape}.")
    if not (np.isfinite(counts).all() and (counts >= 0).all()):
        raise ValueError("`item_counts` must be finite and not negative.")
    # 0 ** 0 is 1, but an item nobody had stays out whatever the power.
    weights = np.where(counts > 0, np.power(counts, alpha, where=counts > 0, out=np.zeros_like(counts)), 0.0)
    weights[0] = 0.0
    return PopularityWeights(weights, np.cumsum(weights), int(np.count_nonzero(weights)))


def draw_negatives(
    targets: ArrayLike,
    seen: ArrayLike | Sequence[Sequence[int]],
    vocab_size: int,
    n_negatives: int = 100,
    distribution: str = "uniform",
    item_counts: ArrayLike | PopularityWeights | None = None,
    alpha: float = 1.0,
    seed: int = 0,
    users: ArrayLike | None = None,
) -> NDArray[np.int64]:
    r"""
    Return negatives for each user, `(b, n_negatives)` catalog rows, all different within a user.

    With `distribution="popularity"` an item's probability grows as its count to the power of `alpha`; they are drawn
    one after the other, without replacement (items without a count are never drawn).

    Args:
        targets (array of shape `(b,)`): Row of each user's held-out item.
        seen (array of shape `(b, s)`, or one sequence of rows per user): Rows of each user's history; 0 is padding.
        vocab_size (`int`): Rows of the catalog, the padding row 0 included; items are rows 1 to `vocab_size - 1`.
        n_negatives (`int`, *optional*, defaults to 100): Negatives per user.
        distribution (`str`, *optional*, defaults to `"uniform"`): `"uniform"` or `"popularity"`.
        item_counts (array of shape `(vocab_size,)` or [`PopularityWeights`], *optional*): Interactions of each row in
            training, or what `popularity_weights` made of them; for `"popularity"` only.
        alpha (`float`, *optional*, defaults to 1.0): Power of the counts; for `"popularity"` only.
        seed (`int`, *optional*, defaults to 0): With `users`, decides every draw.
        users (array of shape `(b,)`, *optional*): A non-negative number that names each user, so that its negatives do
            not depend on the batch it comes in. The position in this call by default.

    Raises:
        ValueError: if an argument is out of its range, or fewer than `n_negatives` items are left to draw for a user.

    Example:

    ```python
    >>> sorted(draw_negatives(targets=[5], seen=[[1, 2]], vocab_size=6, n_negatives=2)[0].tolist())
    [3, 4]
    ```
    """
    target_rows = np.asarray(targets, dtype=np.int64)
    user_numbers = np.arange(len(target_rows)) if users is None else np.asarray(users)
    if not len(target_rows) == len(seen) == len(user_numbers):  # type: ignore[arg-type]
        raise ValueError(
            f"`targets`, `seen` and `users` must describe the same users, got {len(target_rows)} targets, "
            f"{len(seen)} histories and {len(user_numbers)} users."  # type: ignore[arg-type]
        )
    if n_negatives < 1:
        raise ValueError(f"`n_negatives` must be at least 1, got {n_negatives}.")
    popularity = _popularity(distribution, item_counts, alpha, vocab_size)
    negatives = np.empty((len(target_rows), n_negatives), dtype=np.int64)
    for i, (target, history, user) in enumerate(zip(target_rows, seen, user_numbers, strict=True)):  # type: ignore[arg-type]
        # Sorted and without repeats; the padding row is never a negative.
        excluded = np.unique(np.concatenate([[0, target], np.asarray(history, dtype=np.int64)]))
        if excluded[0] < 0 or excluded[-1] >= vocab_size:
            wrong = excluded[0] if excluded[0] < 0 else excluded[-1]
            raise ValueError(f"Rows must be in 0 to {vocab_size - 1} (`vocab_size` - 1), got {wrong} for user {i}.")
        n_left = vocab_size - len(excluded)
        if popularity is not None:
            n_left = popularity.n_drawn - np.count_nonzero(popularity.weights[excluded])
        if n_left < n_negatives:
            raise ValueError(
                f"`n_negatives` must be at most the {n_left} items left to draw for user {i}, got {n_negatives}. "
                "Lower it or use the full ranking."
            )
        generator = np.random.default_rng((seed, int(user)))
        if popularity is None:
            negatives[i] = _uniform(generator, excluded, vocab_size, n_negatives)
        else:
            weights, cumulative, _ = popularity
            negatives[i] = _by_popularity(generator, excluded, weights, cumulative, n_negatives)
    return negatives


def protocol_name(n_negatives: int, distribution: str = "uniform", alpha: float = 1.0) -> str:
    """
    Return what follows a metric's name under a sampled protocol: `100_uniform`, or `100_popularity^0.75`.

    Raises:
        ValueError: if `distribution` is neither `"uniform"` nor `"popularity"`.
    """
    _check_distribution(distribution)
    power = f"^{alpha:g}" if distribution == "popularity" and alpha != 1 else ""
    return f"{n_negatives}_{distribution}{power}"


def _check_distribution(distribution: str) -> None:
    if distribution not in ("uniform", "popularity"):
        raise ValueError(f"`distribution` must be 'uniform' or 'popularity', got {distribution!r}.")


def _popularity(
    distribution: str, item_counts: ArrayLike | PopularityWeights | None, alpha: float, vocab_size: int
) -> PopularityWeights | None:
    """Return the weights of the rows, or `None` where all items weigh the same."""
    _check_distribution(distribution)
    if distribution == "uniform":
        return None
    if item_counts is None:
        raise ValueError(
            "`item_counts` must be given to draw by popularity: how often each row is in the training histories: "
            "`leave_one_out(folder).train.item_counts()`. The catalog's `count` column knows what is held out, too."
        )
    if not isinstance(item_counts, PopularityWeights):
        return popularity_weights(item_counts, vocab_size, alpha)
    if len(item_counts.weights) != vocab_size:
        raise ValueError(f"`item_counts` must be weights of {vocab_size} rows, got {len(item_counts.weights)}.")
    return item_counts


def _uniform(
    generator: np.random.Generator, excluded: NDArray[np.int64], vocab_size: int, n_negatives: int
) -> NDArray[np.int64]:
    """Draw among the rows that are not `excluded` (sorted), in time that does not depend on the catalog's size."""
    ordinals = generator.choice(vocab_size - len(excluded), size=n_negatives, replace=False)
    # excluded[i] - i rows are left over below excluded[i]; the j-th of all is j plus the excluded rows below it.
    return ordinals + np.searchsorted(excluded - np.arange(len(excluded)), ordinals, side="right")


def _by_popularity(
    generator: np.random.Generator,
    excluded: NDArray[np.int64],
    weights: NDArray[np.float64],
    cumulative: NDArray[np.float64],
    n_negatives: int,
) -> NDArray[np.int64]:
    """
    Draw one after the other, each in proportion to the weights of what is left.

    Draws with replacement whose repeats and excluded rows are dropped have that very law, and cost little while most
    of the weight is left. Where it is not, exponential clocks finish: rows in the order in which clocks that tick at
    the rate of their weights ring.
    """
    chosen = np.empty(0, dtype=np.int64)
    for _ in range(_ROUNDS):
        drawn = np.searchsorted(cumulative, generator.random(2 * n_negatives) * cumulative[-1], side="right")
        drawn = np.concatenate([chosen, drawn[~np.isin(drawn, excluded)]])
        chosen = drawn[np.sort(np.unique(drawn, return_index=True)[1])][:n_negatives]
        if len(chosen) == n_negatives:
            return chosen
    left = weights.copy()
    left[excluded] = 0.0
    left[chosen] = 0.0
    rows = np.flatnonzero(left)
    clocks = generator.exponential(size=len(rows)) / left[rows]
    return np.concatenate([chosen, rows[np.argsort(clocks)[: n_negatives - len(chosen)]]])
