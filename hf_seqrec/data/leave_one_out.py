"""Cut every user's history into training, validation and test: views that copy nothing."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .histories import HistoryDataset
from .sequences import Sequences, load_sequences


class LeaveOneOut(NamedTuple):
    """
    The three views of `leave_one_out`.

    Fields:
        train: Histories to learn every next item from.
        validation, test: Histories with the target that follows.
        n_skipped_train: Users with fewer than two training events: nothing to predict.
        n_not_evaluated: Users with fewer than three events.
    """

    train: HistoryDataset
    validation: HistoryDataset
    test: HistoryDataset
    n_skipped_train: int
    n_not_evaluated: int

    @property
    def protocol(self) -> str:
        """What was held out, as a card says it."""
        return "leave-one-out (the last event of each user for test, the last but one for validation)"

    @property
    def counts(self) -> dict[str, int]:
        """Who takes part, and who is left out."""
        return {
            "users trained on": len(self.train),
            "users evaluated": len(self.test),
            "users with fewer than 2 training events": self.n_skipped_train,
            "users with fewer than 3 events, not evaluated": self.n_not_evaluated,
        }


def leave_one_out(sequences: Sequences | str | Path) -> LeaveOneOut:
    """
    Hold out each user's last event for test and the last but one for validation.

    Training has everything before those two; users with fewer than three events are not evaluated and train with all
    they have. A test history contains the validation event. Users who are left with a single training event are
    skipped in training and counted.

    Args:
        sequences ([`Sequences`] or `str`): The histories, or the dataset folder (or its id on the Hub) to load.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if no user has the two events that training needs or the three that evaluation needs.
    """
    if isinstance(sequences, str | Path):
        sequences = load_sequences(sequences)
    starts, ends = sequences.offsets[:-1], sequences.offsets[1:]
    lengths = ends - starts
    evaluated = np.flatnonzero(lengths >= 3)
    train_ends = training_stops(starts, ends)
    trained = np.flatnonzero(train_ends - starts >= 2)
    if not len(trained) or not len(evaluated):
        raise ValueError(
            f"`sequences` must have a user with at least 3 events to evaluate and one with 2 to train on, found "
            f"{len(evaluated)} and {len(trained)} of {len(lengths)} users. Histories this short teach nothing: lower "
            "`min_item_events` or use a longer log."
        )

    def view(users: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], has_targets: bool) -> HistoryDataset:
        return HistoryDataset(sequences, users, starts[users], stops[users], has_targets)

    return LeaveOneOut(
        train=view(trained, train_ends, False),
        validation=view(evaluated, ends - 2, True),
        test=view(evaluated, ends - 1, True),
        n_skipped_train=len(lengths) - len(trained),
        n_not_evaluated=len(lengths) - len(evaluated),
    )


def training_stops(starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where the training part of histories ends in leave-one-out, `(b,)`; with fewer than three events it is all."""
    return np.where(ends - starts >= 3, ends - 2, ends)
