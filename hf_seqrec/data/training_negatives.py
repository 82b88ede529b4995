"""Items to learn against: drawn for each batch as a function of (seed, epoch, user), and of nothing else."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .histories import HistoryBatch
from .seeded_draws import below, more_draws, uniform, user_draws

NEGATIVES_DISTRIBUTIONS = ("uniform", "popularity", "in_batch", "mixed")
# More negatives than this are the same for all positions of a batch: one matrix product scores them, where others at
# each position have to be gathered (64 at 6,400 positions of width 64, forward and backward on a core: 7 ms and 47).
MOST_PER_POSITION = 16
# Numbers the draws of negatives among a user's: 1 and 2 are those of cloze masks.
_NEGATIVE_DRAWS = 3
# Weights become integers that sum to about this, so that leaving one item out is exact.
_TOTAL_WEIGHT = 2**40


class NegativesCollator:
    r"""
    Adds `negatives` to the batches of another collator, and `negatives_log_q` where the loss wants them.

    `negatives` are catalog rows, int64, drawn with replacement: `[b, l, n]` (`[b, n]` for labels `[b]`), others at
    each position and never its label (0 where there is no label), or `[n]`, the same for the whole batch, where the
    losses leave out those that are a position's label. `negatives_log_q`, float32 of the same shape, is the
    log-probability of each to be drawn.

    Each position's draws depend on (seed, epoch, user, window, position), those of a whole batch on the users and
    windows in it. So workers agree, ranks have negatives of their own, and a resumed run has those it would have had.

    Args:
        collator (`Callable`):
            Makes batches with `labels` `[b, l]` or `[b]`, such as [`NextItemCollator`].
        n_items (`int`):
            Items of the catalog, rows `1..n_items`. No other row is ever drawn.
        n_negatives (`int`):
            How many for each position, fewer than there are items.
        distribution (`str`, *optional*, defaults to `"uniform"`):
            Any item with the same probability (`"uniform"`); in proportion to its training events to the power of
            `alpha` (`"popularity"`); the labels of the batch, each as often as it is there (`"in_batch"`); or the
            first half uniform and the others from the batch (`"mixed"`, Yang et al. 2020,
            https://doi.org/10.1145/3366424.3386195). Where a batch has a single item, `"in_batch"` draws that.
        item_counts (`(n_items + 1,)` array, *optional*):
            Training events of each row. Needed for `"popularity"`, and with `log_q` for all but `"uniform"`.
        alpha (`float`, *optional*, defaults to 0.75):
            Of `"popularity"`: 1 is popularity itself, 0 uniform over the items that have events.
        shared (`bool`, *optional*):
            Whether all positions have the same. By default where there are more than 16 negatives.
        log_q (`bool`, *optional*, defaults to `False`):
            Whether to add `negatives_log_q`. Of labels from the batch it is that of their popularity, as if each batch
            were drawn anew from all events.
        seed (`int`, *optional*, defaults to 0):
            Of the draws.

    Raises:
        ValueError: if an argument is out of range or `item_counts` do not fit.
    """

    def __init__(
        self,
        collator: Callable[[Sequence[HistoryBatch]], dict[str, Tensor]],
        n_items: int,
        n_negatives: int,
        distribution: str = "uniform",
        item_counts: npt.NDArray[np.int64] | None = None,
        alpha: float = 0.75,
        shared: bool | None = None,
        log_q: bool = False,
        seed: int = 0,
    ):
        check_negatives(n_negatives, distribution, n_items)
        if not alpha >= 0:
            raise ValueError(f"`negatives_alpha` must be at least 0, got {alpha}.")
        self.collator, self.n_items, self.n_negatives, self.distribution = collator, n_items, n_negatives, distribution
        self.shared = n_negatives > MOST_PER_POSITION if shared is None else shared
        self.log_q, self.seed = log_q, seed
        self.popularity: Law | None = None
        if distribution == "popularity" or (log_q and distribution != "uniform"):
            # How often a batch has an item is its popularity, not a power of it.
            counts = _checked_counts(item_counts, n_items, distribution)
            self.popularity = Law.from_weights(
                np.arange(n_items + 1), counts, alpha if distribution == "popularity" else 1.0
            )

    def __call__(self, examples: Sequence[HistoryBatch]) -> dict[str, Tensor]:
        batch = HistoryBatch.join(examples)
        inputs = self.collator([batch])
        labels = inputs["labels"].numpy()
        draws = user_draws(batch.users, self.seed, batch.epoch)
        if batch.windows is not None:
            draws = more_draws(draws, batch.windows)
        draws = more_draws(draws, _NEGATIVE_DRAWS)

        asked = labels > 0
        targets = labels[asked]
        if self.shared:
            draws = more_draws(np.add.reduce(draws), np.arange(self.n_negatives))  # [n]
            rows, log_q = self._draw(draws, None, targets)
        else:
            if labels.ndim == 2:
                draws = more_draws(draws[:, None], np.arange(labels.shape[1]))
            draws = more_draws(draws[asked][:, None], np.arange(self.n_negatives))  # [m, n]
            drawn, log_q_drawn = self._draw(draws, targets[:, None], targets)
            rows = np.zeros((*labels.shape, self.n_negatives), dtype=np.int64)
            rows[asked] = drawn
            log_q = None
            if log_q_drawn is not None:
                log_q = np.zeros(rows.shape)
                log_q[asked] = log_q_drawn
        inputs["negatives"] = torch.from_numpy(rows)
        if log_q is not None:
            inputs["negatives_log_q"] = torch.from_numpy(log_q.astype(np.float32))
        return inputs

    def _draw(
        self, draws: npt.NDArray[np.uint64], without: npt.NDArray[np.int64] | None, targets: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64] | None]:
        r"""
        Turn draws into rows and their log-probabilities.

        Args:
            draws (`(n,)` or `(m, n)` uint64): Random bits.
            without (`(m, 1)` int64, *optional*): A row that each position must not have.
            targets (`(m,)` int64): Labels of the whole batch.
        """
        n_uniform = {"uniform": self.n_negatives, "mixed": -(-self.n_negatives // 2)}.get(self.distribution, 0)
        rows = np.empty(draws.shape, dtype=np.int64)
        rows[..., :n_uniform] = _uniform_rows(draws[..., :n_uniform], self.n_items, without)
        if n_uniform < self.n_negatives:
            law = self.popularity
            if law is None or self.distribution != "popularity":
                law = Law.from_counts(*np.unique(targets, return_counts=True))
            rows[..., n_uniform:] = law.draw(draws[..., n_uniform:], without)
        if not self.log_q:
            return rows, None
        share = n_uniform / self.n_negatives
        q: Any = share / (self.n_items - (without is not None))
        if self.popularity is not None:
            q = q + (1 - share) * self.popularity.probabilities(rows, without)
        return rows, np.log(np.broadcast_to(q, rows.shape))


class Law(NamedTuple):
    """
    How probable each of some rows is.

    Fields:
        rows (`(u,)` int64): The rows, rising.
        until (`(u,)` int64): Weight of each row and all before it together.
    """

    rows: npt.NDArray[np.int64]
    until: npt.NDArray[np.int64]

    @classmethod
    def from_counts(cls, rows: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> "Law":
        """Draw each row in proportion to its count."""
        return cls(rows, np.cumsum(counts))

    @classmethod
    def from_weights(cls, rows: npt.NDArray[np.int64], counts: npt.NDArray[np.int64], alpha: float) -> "Law":
        """Draw each row in proportion to its count to the power of `alpha`; those without a count never."""
        counted = counts > 0
        weights = (counts[counted] / counts.max()) ** alpha
        integers = np.rint(weights / weights.sum() * _TOTAL_WEIGHT).astype(np.int64)
        return cls.from_counts(rows[counted], np.maximum(integers, 1))

    def draw(self, draws: npt.NDArray[np.uint64], without: npt.NDArray[np.int64] | None) -> npt.NDArray[np.int64]:
        """Draw rows, none of them `without` (broadcast) unless there is no other."""
        weight, before = (0, 0) if without is None else self._weights(without)
        points = (uniform(draws) * (self.until[-1] - weight)).astype(np.int64)
        # The weight left out is a gap, over which all points behind it step.
        points = points + weight * (points >= before)
        # Without any weight left the point is beyond the last row, which is then the only one.
        places = np.minimum(np.searchsorted(self.until, points, side="right"), len(self.rows) - 1)
        return self.rows[places]

    def probabilities(
        self, rows: npt.NDArray[np.int64], without: npt.NDArray[np.int64] | None
    ) -> npt.NDArray[np.float64]:
        """Return the probability of each row where `without` (broadcast) is not drawn."""
        left = self.until[-1] - (0 if without is None else self._weights(without)[0])
        # A row with no weight comes from a batch that was not counted, or is left out by the loss: any number will do.
        return np.maximum(self._weights(rows)[0], 1) / np.maximum(left, 1)

    def _weights(self, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return each row's weight, 0 for one that is not there, and that of all rows before it."""
        places = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        before = np.where(places > 0, self.until[places - 1], 0)
        return np.where(self.rows[places] == rows, self.until[places] - before, 0), before


def check_negatives(n_negatives: int, distribution: str, n_items: int | None = None) -> None:
    """Raise unless so many negatives can be drawn so, from so many items where that is known."""
    if distribution not in NEGATIVES_DISTRIBUTIONS:
        raise ValueError(
            f"`negatives_distribution` must be one of {', '.join(NEGATIVES_DISTRIBUTIONS)}, got {distribution!r}."
        )
    least = 2 if distribution == "mixed" else 1
    if n_negatives < least:
        raise ValueError(f"`num_negatives` must be at least {least} with {distribution} negatives, got {n_negatives}.")
    if n_items is not None and n_negatives >= n_items:
        raise ValueError(
            f"`num_negatives` must be at most the {n_items - 1} items that are not the right one, got {n_negatives}. "
            "Lower it, or take all of them with `--loss full_softmax`."
        )


def _uniform_rows(
    draws: npt.NDArray[np.uint64], n_items: int, without: npt.NDArray[np.int64] | None
) -> npt.NDArray[np.int64]:
    if without is None:
        return 1 + below(draws, np.array(n_items))
    rows = 1 + below(draws, np.array(n_items - 1))
    return rows + (rows >= without)


def _checked_counts(counts: npt.NDArray[np.int64] | None, n_items: int, distribution: str) -> npt.NDArray[np.int64]:
    if counts is None:
        raise ValueError(
            f"`item_counts` must say how often each item is in the training events, for {distribution} negatives, got "
            "None. Training views have `item_counts()`."
        )
    if counts.shape != (n_items + 1,) or counts[0] != 0 or counts.min() < 0 or not counts.any():
        raise ValueError(
            f"`item_counts` must be {n_items + 1} counts, 0 for the padding row and more for some item, got "
            f"shape {counts.shape}."
        )
    return counts
