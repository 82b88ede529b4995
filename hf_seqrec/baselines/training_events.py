"""What baselines are fitted on: the training events of all users, one history behind the other."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..data.histories import HistoryBatch
from ..data.streaming import StreamedHistories


class TrainingEvents(NamedTuple):
    """
    Training histories in memory: 4 bytes an event.

    Fields:
        item_rows (`(n,)` int32): Every training event, and nothing else.
        offsets (`(n_histories + 1,)` int64): History i is `item_rows[offsets[i]:offsets[i + 1]]`, oldest first.
        vocab_size (`int`): Items of the catalog, plus 1 for the padding row.
    """

    item_rows: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    vocab_size: int

    def item_counts(self) -> npt.NDArray[np.int64]:
        """How often each catalog row occurs, `(vocab_size,)`."""
        return np.bincount(self.item_rows, minlength=self.vocab_size)

    def histories(self) -> npt.NDArray[np.int32]:
        """The position of each event's history, `(n,)`."""
        return np.repeat(np.arange(len(self.offsets) - 1, dtype=np.int32), np.diff(self.offsets))


def training_events(histories: Any) -> TrainingEvents:
    r"""
    Copy the events of a training view.

    Args:
        histories (`HistoryDataset` or `StreamedHistories`): The training view of a split. Streamed histories are read
            whole, whatever window the stream cuts for a model, and by every process.

    Raises:
        ValueError: if `histories` is a validation or test view, or cut into windows.
    """
    if isinstance(histories, StreamedHistories):
        batch = HistoryBatch.join(list(histories.whole_histories()))
        vocab_size = histories.files.n_items + 1
    else:
        if histories.targets is not None:
            raise ValueError(
                "`histories` must be the training view of a split, got one with targets. A baseline that is fitted on "
                "a validation or test view knows what is held out."
            )
        if histories.windows is not None:
            raise ValueError(
                "`histories` must be whole, got windows, which may overlap and count an event twice. Pass the "
                "training view of the split itself."
            )
        (batch,) = histories.__getitems__(np.arange(len(histories)))
        batch = batch.compact()
        vocab_size = histories.sequences.catalog.vocab_size
    return TrainingEvents(batch.item_rows, np.append(0, batch.stops), vocab_size)
