"""What no trained model should lose to: recommending what is popular."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hf_seqrec.metrics import ranking_metrics

from ..data.histories import HistoryDataset
from ..data.streaming import StreamedHistories
from .baseline import Baseline
from .training_events import TrainingEvents


@dataclass
class MostPopular(Baseline):
    """Scores are training events of an item, whatever the history."""

    def _fit(self, events: TrainingEvents) -> None:
        # float64 tells all counts apart.
        self._counts = torch.from_numpy(events.item_counts().astype(np.float64))
        self._counts[0] = -torch.inf

    def _scores(self, input_ids: Tensor) -> Tensor:
        return self._counts.expand(len(input_ids), -1)


def popularity_baseline(
    train: HistoryDataset | StreamedHistories, evaluation: HistoryDataset, ks: Sequence[int] = (1, 5, 10, 20)
) -> dict[str, float]:
    r"""
    Metrics of recommending the most popular items to everyone: `hr@k`, `ndcg@k`, `mrr@k`, each also `..._with_seen`.

    Popularity is counted on the training events. Without a suffix, a user's history is excluded from the ranking
    (never the target itself); `_with_seen` ranks the full catalog. Ranks start at 0 and ties count against the target.

    Args:
        train (`HistoryDataset` or `StreamedHistories`): The training view of a split.
        evaluation (`HistoryDataset`): Its validation or test view.
        ks (`Sequence[int]`): Cut-offs.

    Raises:
        ValueError: if `evaluation` has no targets.
    """
    ranks, ranks_with_seen = popularity_ranks(train, evaluation)
    metrics = ranking_metrics(ranks, ks)
    return metrics | {f"{name}_with_seen": value for name, value in ranking_metrics(ranks_with_seen, ks).items()}


def popularity_ranks(
    train: HistoryDataset | StreamedHistories, evaluation: HistoryDataset
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Ranks of the targets by popularity, `(n,)` each: with the history excluded, and with it."""
    targets = evaluation.targets
    if targets is None:
        raise ValueError("`evaluation` must have targets; use the validation or test view of `leave_one_out`.")
    counts = train.item_counts()
    # Items at least as popular as the target, without the target.
    sorted_counts = np.sort(counts[1:])
    with_seen = len(sorted_counts) - np.searchsorted(sorted_counts, counts[targets]) - 1

    rows, histories = evaluation.events()
    seen = np.unique(histories * np.int64(len(counts)) + rows)
    histories, rows = seen // len(counts), seen % len(counts)
    ahead = (counts[rows] >= counts[targets[histories]]) & (rows != targets[histories])
    return with_seen - np.bincount(histories[ahead], minlength=len(targets)), with_seen


def popularity_below_zero(item_counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """
    Return scores in [-1, 0) that order items by their counts, `(v,)`: for items of which nothing else is known.

    They are evenly spaced, not in proportion to the counts, so that float32 tells all different counts apart.
    """
    different, places = np.unique(item_counts, return_inverse=True)
    return (places / len(different) - 1).astype(np.float32)
