"""Items that the same users have: cosine neighbours."""

from dataclasses import dataclass, field

import numpy as np
from scipy import sparse
from torch import Tensor

from .baseline import Baseline, check_parameter
from .neighbors import neighbor_table, scores_from_neighbors
from .popularity import popularity_below_zero
from .training_events import TrainingEvents


@dataclass
class ItemKNN(Baseline):
    r"""
    Item-based nearest neighbours (Sarwar et al. 2001, https://doi.org/10.1145/371920.372071), most recent items first.

    With `U_i` the users whose training history has item i, and only the `n_neighbors` largest of each row:

    $$\mathrm{similarity}_{ij} = \frac{|U_i \cap U_j|}{\sqrt{|U_i| |U_j|} + \mathrm{shrinkage}} \qquad
    s_j = \sum_{a < \mathrm{max\_history}} \mathrm{decay}^a \, \mathrm{similarity}_{h_{l-a}, j}$$

    An item is no neighbour of itself. Items that are a neighbour of none come last, by popularity.

    Args:
        n_neighbors (`int`, *optional*, defaults to 200): Neighbours of an item that are kept.
        max_history (`int`, *optional*, defaults to 20): Most recent items of a user that count; `None`: all.
        decay (`float`, *optional*, defaults to 0.8): Weight of an item compared with that of the next one. With 1
            and `max_history=None` the order of a history makes no difference.
        shrinkage (`float`, *optional*, defaults to 10): Added to the denominator, so that a pair of
            rare items counts less.

    Raises:
        ValueError: if an argument is out of range.
    """

    n_neighbors: int = 200
    max_history: int | None = 20
    decay: float = 0.8
    shrinkage: float = 10.0

    def __post_init__(self) -> None:
        check_parameter("n_neighbors", self.n_neighbors, 1)
        if self.max_history is not None:
            check_parameter("max_history", self.max_history, 1)
        check_parameter("decay", self.decay, 0, 1)
        check_parameter("shrinkage", self.shrinkage, 0)

    def _fit(self, events: TrainingEvents) -> None:
        users_of_items = user_matrix(events).T.tocsr()  # [v, histories]
        items_of_users = users_of_items.T.tocsr()
        n_users = np.diff(users_of_items.indptr)
        norms = np.sqrt(n_users)
        # What a product adds up: all items of all users of an item.
        costs = users_of_items @ np.diff(items_of_users.indptr)

        def similarities_of_rows(first: int, end: int) -> sparse.csr_array:
            similarities = users_of_items[first:end] @ items_of_users
            similarities.sort_indices()
            rows = np.repeat(np.arange(first, end), np.diff(similarities.indptr))
            similarities.data /= norms[rows] * norms[similarities.indices] + self.shrinkage
            similarities.data[rows == similarities.indices] = 0
            similarities.eliminate_zeros()
            return similarities

        # A row has no more pairs than there are items, because the product adds up equal ones as it goes.
        costs = np.minimum(costs.astype(np.int64), events.vocab_size)
        self._table = neighbor_table(costs, similarities_of_rows, self.n_neighbors)
        self._without_evidence = popularity_below_zero(events.item_counts())

    def _scores(self, input_ids: Tensor) -> Tensor:
        return scores_from_neighbors(input_ids, self._table, self._without_evidence, self.max_history, self.decay)


@dataclass
class LastItemKNN(ItemKNN):
    """The neighbours of the last item alone, whatever was before; otherwise as [`ItemKNN`]."""

    max_history: int | None = field(default=1, init=False)
    decay: float = field(default=1.0, init=False)


def user_matrix(events: TrainingEvents) -> sparse.csr_array:
    """Return which training history has which item, `(n_histories, v)` of float32 ones, however often it has it."""
    ones = np.ones(len(events.item_rows), dtype=np.float32)
    shape = (len(events.offsets) - 1, events.vocab_size)
    matrix: sparse.csr_array = sparse.csr_array((ones, (events.histories(), events.item_rows)), shape=shape)
    matrix.data[:] = 1
    return matrix
