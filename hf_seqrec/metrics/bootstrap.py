"""How far metrics would move with other users of the same kind: bootstrap intervals, and a test of two models."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .ranking import CUT_OFFS, ranking_values

# Differences below this are rounding: the gains of a resample that cancel.
_ZERO = 1e-12
# Counts of resamples held at once: 128 MiB.
_DRAWN_AT_ONCE = 2**24


class PairedDifference(NamedTuple):
    """
    How much better one model is than another on the same users.

    Fields:
        difference: The metric of the first minus that of the second.
        low, high: The bootstrap interval of the difference.
        p_value: Two-sided p-value of no difference, in (0, 1].
    """

    difference: float
    low: float
    high: float
    p_value: float


def bootstrap_intervals(
    ranks: ArrayLike,
    k: int | Sequence[int] = CUT_OFFS,
    n_resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, tuple[float, float]]:
    r"""
    Return the percentile bootstrap interval of every metric, as `{"hr@1": (low, high), "ndcg@1": ...}`.

    Efron 1979 (https://doi.org/10.1214/aos/1176344552): users are drawn with replacement, as many as there are, the
    metric is computed anew, and the interval holds the middle `confidence` of the results. It says how sure the number
    is for this model; other seeds of the training spread it further.

    Metrics depend on ranks alone and all ranks beyond the last cut-off are alike, so a resample is drawn as how many
    users have each rank (one multinomial draw) and not user by user: the same law, whatever the number of users.

    Args:
        ranks (array of shape `(b,)`): Rank of each user's held-out item, from 0.
        k (`int` or sequence of `int`, *optional*, defaults to `(1, 5, 10, 20)`): Cut-offs.
        n_resamples (`int`, *optional*, defaults to 1000): How often the users are drawn.
        confidence (`float`, *optional*, defaults to 0.95): Share of the resamples inside, in (0, 1).
        seed (`int`, *optional*, defaults to 0): Of the resamples.

    Raises:
        ValueError: if an argument is out of range, or `ranks` is empty, negative, NaN or not whole.

    Example:

    ```python
    >>> low, high = bootstrap_intervals([0] * 50 + [5] * 50, k=1)["hr@1"]
    >>> round(low, 1), round(high, 1)
    (0.4, 0.6)
    ```
    """
    _check_resampling(n_resamples, confidence)
    # Checks ranks and cut-offs.
    ranking_values(ranks, k)
    last = int(np.max(k))
    classes, counts = np.unique(np.minimum(np.asarray(ranks), last), return_counts=True)
    gains = ranking_values(classes, k)
    n_users = int(counts.sum())
    # [n_resamples, n_classes]
    drawn = np.random.default_rng(seed).multinomial(n_users, counts / n_users, size=n_resamples)
    tail = (1 - confidence) / 2
    intervals = {}
    for name, gain in gains.items():
        low, high = np.quantile(drawn @ gain / n_users, [tail, 1 - tail])
        intervals[name] = (float(low), float(high))
    return intervals


def paired_bootstrap(
    ranks: ArrayLike,
    other_ranks: ArrayLike,
    k: int | Sequence[int] = CUT_OFFS,
    n_resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, PairedDifference]:
    r"""
    Compare two models on the same users, metric by metric, as `{"hr@1": PairedDifference(...), "ndcg@1": ...}`.

    Users are drawn with replacement, each with both of its ranks, and the difference of the metrics is computed anew
    (Efron and Tibshirani 1993, An Introduction to the Bootstrap, Sections 13.3 and 15.4). The interval holds the
    middle `confidence` of the differences. The p-value belongs to the same percentiles: twice the share of resamples
    on the rarer side of 0, where those at 0 count on both sides. So at 95 % confidence p is below 0.05 where the
    interval leaves out 0. One is added to both counts, so that p is never 0 (Davison and Hinkley 1997, Bootstrap
    Methods and their Application, Section 4.2).

    The test covers the choice of users, not the seed of the training: compare several seeds of trained models. Where
    there is no difference, one test in twenty still finds p below 0.05.

    Args:
        ranks (array of shape `(b,)`): Rank of each user's held-out item, from 0, by the first model.
        other_ranks (array of shape `(b,)`): The same users, in the same order, by the second.
        k (`int` or sequence of `int`, *optional*, defaults to `(1, 5, 10, 20)`): Cut-offs.
        n_resamples (`int`, *optional*, defaults to 10_000): How often the users are drawn.
        confidence (`float`, *optional*, defaults to 0.95): Share of the resamples inside the interval, in (0, 1).
        seed (`int`, *optional*, defaults to 0): Of the resamples.

    Raises:
        ValueError: if an argument is out of range, ranks are empty, negative, NaN or not whole, or the two are not
            equally many.

    Example:

    ```python
    >>> found = paired_bootstrap([0] * 90 + [9] * 10, [0] * 60 + [9] * 40, k=1)["hr@1"]
    >>> round(found.difference, 3), found.p_value < 0.001
    (0.3, True)
    ```
    """
    _check_resampling(n_resamples, confidence)
    # Checks ranks and cut-offs.
    for one in (ranks, other_ranks):
        ranking_values(one, k)
    last = int(np.max(k))
    capped, other_capped = np.minimum(np.asarray(ranks), last), np.minimum(np.asarray(other_ranks), last)
    n_users = len(capped)
    if len(other_capped) != n_users:
        raise ValueError(
            f"`other_ranks` must be of the same {n_users} users as `ranks`, got {len(other_capped)}. Rank the same "
            "view with both models."
        )
    classes, counts = np.unique(np.stack([capped, other_capped]), axis=1, return_counts=True)
    gains, other_gains = ranking_values(classes[0], k), ranking_values(classes[1], k)
    of_classes = np.stack([gains[name] - other_gains[name] for name in gains], axis=1)  # [n_classes, n_metrics]
    generator = np.random.default_rng(seed)
    at_once = max(1, _DRAWN_AT_ONCE // len(counts))
    resampled = np.concatenate(
        [
            generator.multinomial(n_users, counts / n_users, size=min(at_once, n_resamples - start)) @ of_classes
            for start in range(0, n_resamples, at_once)
        ]
    )
    tail = (1 - confidence) / 2
    found = {}
    for metric, name in enumerate(gains):
        differences = resampled[:, metric] / n_users
        low, high = np.quantile(differences, [tail, 1 - tail])
        rarer = min((differences <= _ZERO).sum(), (differences >= -_ZERO).sum())
        p_value = min(1.0, 2 * (1 + int(rarer)) / (1 + n_resamples))
        difference = counts @ of_classes[:, metric] / n_users
        found[name] = PairedDifference(float(difference), float(low), float(high), p_value)
    return found


def _check_resampling(n_resamples: int, confidence: float) -> None:
    if n_resamples < 1:
        raise ValueError(f"`n_resamples` must be at least 1, got {n_resamples}.")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"`confidence` must be in (0, 1), got {confidence}.")
