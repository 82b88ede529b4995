"""What followed what: a count of pairs of items within a window."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from torch import Tensor

from .baseline import Baseline, check_parameter
from .neighbors import PAIRS_AT_ONCE, neighbor_table, scores_from_neighbors
from .popularity import popularity_below_zero
from .training_events import TrainingEvents


@dataclass
class SequentialRules(Baseline):
    r"""
    Sequential rules (Ludewig and Jannach 2018, Section 2.2, https://doi.org/10.1007/s11257-018-9209-6).

    In a history `h`, each pair of events at most `window` apart adds to the weight from the earlier item to the
    later one:

    $$w_{ij} = \sum_h \sum_{p < q \le p + \mathrm{window}} \frac{[h_p = i][h_q = j]}{q - p} \qquad
    s_j = \sum_{a < \mathrm{max\_history}} \mathrm{decay}^a \frac{w_{h_{l-a}, j}}{\sum_{j'} w_{h_{l-a}, j'}}$$

    Other than in the paper, the score is not of the last item's rules alone: those of the `max_history` most recent
    items count too, less with each step back. Items that follow none of them come last, by popularity.

    `window=1` is a Markov chain of first order, and with `max_history=1` the textbook's.

    Args:
        window (`int`, *optional*, defaults to 10): Most events from an item to one that it predicts.
        max_history (`int`, *optional*, defaults to 20): Most recent items of a user that predict.
        decay (`float`, *optional*, defaults to 0.8): Weight of an item compared with that of the next one.
        max_neighbors (`int`, *optional*, defaults to 200): Most items that an item predicts: those of largest weight.

    Raises:
        ValueError: if an argument is out of range.
    """

    window: int = 10
    max_history: int = 20
    decay: float = 0.8
    max_neighbors: int = 200

    def __post_init__(self) -> None:
        check_parameter("window", self.window, 1)
        check_parameter("max_history", self.max_history, 1)
        check_parameter("decay", self.decay, 0, 1)
        check_parameter("max_neighbors", self.max_neighbors, 1)

    def _fit(self, events: TrainingEvents) -> None:
        counts = events.item_counts()
        first_places = np.append(0, np.cumsum(counts))
        # Places of all events, those of item 1 first.
        places = np.argsort(events.item_rows, kind="stable")
        stops = np.repeat(events.offsets[1:], np.diff(events.offsets))

        def weights_of_rows(first: int, end: int) -> sparse.csr_array:
            inside = places[first_places[first] : first_places[end]]
            weights = sparse.csr_array((end - first, events.vocab_size), dtype=np.float64)
            # More than one piece only of an item with very many events.
            for begin in range(0, len(inside), max(1, PAIRS_AT_ONCE // self.window)):
                piece = inside[begin : begin + max(1, PAIRS_AT_ONCE // self.window)]
                weights = weights + _following(events.item_rows, piece, stops, self.window, first, weights.shape)
            totals = weights.sum(axis=1)
            weights.data /= np.repeat(totals, np.diff(weights.indptr))
            return weights

        self._table = neighbor_table(counts * self.window, weights_of_rows, self.max_neighbors)
        self._without_evidence = popularity_below_zero(counts)

    def _scores(self, input_ids: Tensor) -> Tensor:
        return scores_from_neighbors(input_ids, self._table, self._without_evidence, self.max_history, self.decay)


def _following(
    item_rows: npt.NDArray[np.int32],
    places: npt.NDArray[np.int64],
    stops: npt.NDArray[np.int64],
    window: int,
    first_row: int,
    shape: tuple[int, int],
) -> sparse.csr_array:
    """Add up 1 / distance from the events at some places to those that follow them, from row `first_row` on."""
    from_rows, to_rows, weights = [], [], []
    for distance in range(1, window + 1):
        followed = places[places + distance < stops[places]]
        from_rows.append(item_rows[followed] - first_row)
        to_rows.append(item_rows[followed + distance])
        weights.append(np.full(len(followed), 1 / distance))
    # Added up in float64: which block a pair is in changes nothing once it is float32.
    pairs = (np.concatenate(from_rows), np.concatenate(to_rows))
    return sparse.csr_array((np.concatenate(weights), pairs), shape=shape)
