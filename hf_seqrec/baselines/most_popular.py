"""Recommending to everyone what is popular."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

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


def popularity_below_zero(item_counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """
    Return scores in [-1, 0) that order items by their counts, `(v,)`: for items of which nothing else is known.

    They are evenly spaced, not in proportion to the counts, so that float32 tells all different counts apart.
    """
    different, places = np.unique(item_counts, return_inverse=True)
    return (places / len(different) - 1).astype(np.float32)
