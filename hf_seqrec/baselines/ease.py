"""A linear model of all pairs of items, in closed form."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import linalg
from torch import Tensor, from_numpy

from .baseline import Baseline, BaselineLimitError, check_parameter
from .history_weights import history_weights
from .item_knn import user_matrix
from .training_events import TrainingEvents

_ROWS_AT_ONCE = 1024


@dataclass
class EASE(Baseline):
    r"""
    Embarrassingly shallow autoencoder (Steck 2019, https://arxiv.org/abs/1905.03375), most recent items first.

    With `X` the users' training histories as rows of zeros and ones, `B` is the ridge regression of each column of
    `X` on all others:

    $$P = (X^\top X + \lambda I)^{-1} \qquad B_{ij} = -P_{ij} / P_{jj}, \; B_{ii} = 0 \qquad
    s_j = \sum_{a < \mathrm{max\_history}} \mathrm{decay}^a B_{h_{l-a}, j}$$

    The paper's scores are those of `decay=1` and `max_history=None`. They know no order, and are far lower where the
    next item is asked for.

    `B` is dense, in float32: 4 bytes for each pair of items, and time grows with their cube.

    Args:
        l2 (`float`, *optional*, defaults to 500): The penalty, lambda.
        max_history (`int`, *optional*): Most recent items of a user that count; `None`: all.
        decay (`float`, *optional*, defaults to 0.8): Weight of an item compared with that of the next one.
        max_items (`int`, *optional*, defaults to 30_000): The largest catalog to try.

    Raises:
        ValueError: if an argument is out of range. `fit` raises a [`BaselineLimitError`] where the catalog is larger
            than `max_items`.
    """

    l2: float = 500.0
    max_history: int | None = None
    decay: float = 0.8
    max_items: int = 30_000

    def __post_init__(self) -> None:
        if self.l2 <= 0:
            raise ValueError(f"`l2` must be above 0, got {self.l2}.")
        if self.max_history is not None:
            check_parameter("max_history", self.max_history, 1)
        check_parameter("decay", self.decay, 0, 1)

    def _fit(self, events: TrainingEvents) -> None:
        n_items = events.vocab_size - 1
        if n_items > self.max_items:
            raise BaselineLimitError(
                f"EASE holds a weight for each pair of items: the {n_items:,} items of this catalog need "
                f"{4 * n_items**2 / 2**30:,.1f} GiB of memory, and time grows with their cube. `max_items` is "
                f"{self.max_items:,}. Raise it if you have both, or take the baselines rules or item_knn."
            )
        weights = inverse_of_gram_matrix(events, self.l2)
        diagonal = weights.diagonal().copy()
        weights /= -diagonal  # columns
        np.fill_diagonal(weights, 0)
        self._weights = weights

    def _scores(self, input_ids: Tensor) -> Tensor:
        history = history_weights(input_ids, self.vocab_size, self.max_history, self.decay).astype(np.float32)
        scores = history @ self._weights
        scores[:, 0] = -np.inf
        return from_numpy(scores)


def inverse_of_gram_matrix(events: TrainingEvents, l2: float) -> npt.NDArray[np.float32]:
    """Return `(X^T X + l2 I)^-1`, `(v, v)`, without a second matrix of this size."""
    items_of_users = user_matrix(events)
    users_of_items = items_of_users.T.tocsr()
    gram = np.empty((events.vocab_size, events.vocab_size), dtype=np.float32)
    for start in range(0, len(gram), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        gram[rows] = (users_of_items[rows] @ items_of_users).toarray()
    np.fill_diagonal(gram, gram.diagonal() + np.float32(l2))
    # Transposed, because LAPACK works in place on columns. The matrix is symmetric and positive definite.
    factor, failed = linalg.lapack.spotrf(gram.T, lower=1, clean=0, overwrite_a=1)
    if not failed:
        inverse, failed = linalg.lapack.spotri(factor, lower=1, overwrite_c=1)
    if failed:
        raise ValueError(
            f"`l2` must be large enough to invert the matrix of {events.vocab_size - 1:,} items in float32, got {l2}. "
            "Raise it."
        )
    inverse = inverse.T
    # What was computed is above the diagonal.
    for start in range(0, len(inverse), _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, len(inverse))
        inverse[start:stop, :start] = inverse[:start, start:stop].T
        corner = inverse[start:stop, start:stop]
        corner[:] = np.triu(corner) + np.triu(corner, 1).T
    return inverse
