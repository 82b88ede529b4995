"""How far metrics would move with other users of the same kind: bootstrap confidence intervals."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from .ranking import CUT_OFFS, ranking_values


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
    if n_resamples < 1:
        raise ValueError(f"`n_resamples` must be at least 1, got {n_resamples}.")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"`confidence` must be in (0, 1), got {confidence}.")
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
