"""One cut through time for all users: train before it, validate and test on what came after."""

import re
from datetime import datetime, timezone
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from transformers.utils import logging

from .histories import HistoryDataset
from .sequences import Sequences

logger = logging.get_logger(__name__)

# From 1973 to the year 5138. Smaller numbers count days or positions, larger ones milliseconds.
_UNIX_SECONDS = (10**8, 10**11)


class GlobalTimeSplit(NamedTuple):
    """
    The three views of `global_time_split`, and what it left out.

    Fields:
        train: What every user did before `validation_from`.
        validation, test: Histories with the target that follows.
        validation_from, test_from: The cuts, in the unit of the timestamps (Unix seconds).
        are_unix_seconds: Whether the timestamps are; if not, they cannot be shown as dates.
        n_skipped_train: Users with one training event: nothing to predict.
        n_cold_users: Users who only came after `validation_from`, and are neither trained on nor evaluated.
        n_cold_items: Items that no training history has.
        n_cold_validation_targets, n_cold_test_targets: Users who are not evaluated in the period because the item
            they took first is cold.
    """

    train: HistoryDataset
    validation: HistoryDataset
    test: HistoryDataset
    validation_from: int
    test_from: int
    are_unix_seconds: bool
    n_skipped_train: int
    n_cold_users: int
    n_cold_items: int
    n_cold_validation_targets: int
    n_cold_test_targets: int

    @property
    def protocol(self) -> str:
        """What was held out, as a card says it."""
        return (
            f"global time cut (trained on events before {self._when(self.validation_from)}; targets of validation "
            f"from then on, of test from {self._when(self.test_from)}; the target is a user's first event of the "
            "period, the history everything before it; items and users without training events are left out)"
        )

    @property
    def counts(self) -> dict[str, int]:
        """Who takes part, and who and what is left out."""
        return {
            "users trained on": len(self.train),
            "users evaluated in validation": len(self.validation),
            "users evaluated": len(self.test),
            "users with fewer than 2 training events": self.n_skipped_train,
            "cold users (no training event), not evaluated": self.n_cold_users,
            "cold items (no training event)": self.n_cold_items,
            "users not evaluated in validation, their target is cold": self.n_cold_validation_targets,
            "users not evaluated, their target is cold": self.n_cold_test_targets,
        }

    def _when(self, cut: int) -> str:
        if not self.are_unix_seconds:
            return f"timestamp {cut}"
        return datetime.fromtimestamp(cut, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def global_time_split(
    sequences: Sequences,
    validation_from: str | float = 0.8,
    test_from: str | float = 0.9,
    keep_cold_targets: bool = False,
) -> GlobalTimeSplit:
    r"""
    Cut all histories at the same two moments: training before the first, validation between them, test after.

    Leave-one-out lets a model learn from what others did after the event it is to predict; a cut through time does
    not, as in use. Which of the two is taken can change which model is best: Meng et al. 2020
    (https://arxiv.org/abs/2007.13237), Gusak et al. 2025 (https://arxiv.org/abs/2507.16289).

    Every evaluated user has one target in each period: the first event of it. So each user counts once, as in
    leave-one-out, the target directly follows the history, and nothing of the period itself is known, as for a model
    trained at the cut. The price, shown by Gusak et al.: a first event may follow a longer pause than others do. They
    compare it with the last event and with all events of the period.

    A history is everything before its target: for test it contains the validation period, on which the model was not
    trained. An item without training events ("cold") cannot be learned: a user whose target is cold is not evaluated
    in that period. In a history it stays, as an item that the model does not know. Users without an event before
    `validation_from` ("cold") are not evaluated either. All of them are counted.

    Args:
        sequences ([`Sequences`]): A dataset, loaded with timestamps.
        validation_from, test_from (`str` or `float`, *optional*, default to 0.8 and 0.9):
            The cuts; events at that very second come after. A date or time (`"2003-01-31"`,
            `"2003-01-31T12:00:00+01:00"`; UTC where it does not say), a timestamp in the unit of the dataset, or the
            share of the events that comes before, between 0 and 1 (fewer where many events have the same timestamp).
        keep_cold_targets (`bool`, *optional*, defaults to `False`): Evaluate cold targets too.

    Raises:
        ValueError: if the dataset has no timestamps or they are out of order, a cut is not understood, the two are in
            the wrong order, or a period has nobody to train on or to evaluate.
    """
    times = _checked_timestamps(sequences)
    cuts = [
        _moment(name, cut, times) for name, cut in (("validation_from", validation_from), ("test_from", test_from))
    ]
    _check_cuts(cuts, times)
    starts, ends = sequences.offsets[:-1], sequences.offsets[1:]
    train_ends, test_begins = (starts + _events_before(cut, times, sequences.offsets) for cut in cuts)
    trained = np.flatnonzero(train_ends - starts >= 2)
    if not len(trained):
        raise ValueError(
            f"`validation_from` must leave a user with 2 events to train on before {cuts[0]}, found none among "
            f"{sequences.n_users:,} users. Cut later."
        )
    train = HistoryDataset(sequences, trained, starts[trained], train_ends[trained], has_targets=False)
    learned = train.item_counts() > 0

    views, n_cold_targets = [], []
    for name, targets, period_ends in (("validation", train_ends, test_begins), ("test", test_begins, ends)):
        users = np.flatnonzero((train_ends > starts) & (targets < period_ends))
        is_cold = ~learned[sequences.item_rows[targets[users]]]
        n_cold_targets.append(int(is_cold.sum()))
        if not keep_cold_targets:
            users = users[~is_cold]
        if not len(users):
            raise ValueError(
                f"`{name}_from` must leave a user to evaluate in the {name} period: one with events before "
                f"`validation_from` ({cuts[0]}) and then, first in the period, an item known from training. Found "
                f"none among {sequences.n_users:,} users ({n_cold_targets[-1]} of them took an unknown item). Make "
                "the period longer or cut later."
            )
        views.append(HistoryDataset(sequences, users, starts[users], targets[users], has_targets=True))
    return GlobalTimeSplit(
        train=train,
        validation=views[0],
        test=views[1],
        validation_from=cuts[0],
        test_from=cuts[1],
        are_unix_seconds=_are_unix_seconds(times),
        n_skipped_train=int((train_ends - starts == 1).sum()),
        n_cold_users=int(((train_ends == starts) & (ends > starts)).sum()),
        n_cold_items=int((~learned[1:]).sum()),
        n_cold_validation_targets=n_cold_targets[0],
        n_cold_test_targets=n_cold_targets[1],
    )


def _checked_timestamps(sequences: Sequences) -> npt.NDArray[np.int64]:
    times = sequences.timestamps
    if times is None:
        raise ValueError(
            "`sequences` must have timestamps to be cut in time. `load_sequences(folder, timestamps=True)`"
        )
    if not len(times):
        raise ValueError("`sequences` must have events to be cut in time, got none.")
    falls = np.flatnonzero(times[1:] < times[:-1]) + 1
    # A fall from one user to the next is none.
    falls = falls[~np.isin(falls, sequences.offsets)]
    if len(falls):
        user = int(np.searchsorted(sequences.offsets, falls[0], side="right")) - 1
        raise ValueError(
            f"`sequences` must have every user's events oldest first to be cut in time, {len(falls)} are not, the "
            f"first of user {sequences.user_ids[user].as_py()!r}: {times[falls[0]]} after {times[falls[0] - 1]}."
        )
    return times


def _are_unix_seconds(times: npt.NDArray[np.int64]) -> bool:
    return bool(len(times)) and _UNIX_SECONDS[0] <= times.max() < _UNIX_SECONDS[1]


def _moment(name: str, cut: str | float, times: npt.NDArray[np.int64]) -> int:
    """Turn a cut as the user writes it into a timestamp."""
    text = str(cut).strip()
    if re.fullmatch(r"-?\d+", text):
        return int(text)
    try:
        share = float(text)
    except ValueError:
        return _moment_of_date(name, text, times)
    if not 0 < share < 1:
        raise ValueError(
            f"`{name}` must be a date, a whole timestamp or a share of the events between 0 and 1, got {cut!r}."
        )
    if not _are_unix_seconds(times):
        logger.warning(
            f"The timestamps ({times.min()} to {times.max()}) are no Unix seconds. If they count each user's events, "
            "a cut in time is none: it holds no later event of other users back."
        )
    place = int(share * len(times))
    return int(np.partition(times, place)[place])


def _moment_of_date(name: str, text: str, times: npt.NDArray[np.int64]) -> int:
    try:
        # `Z` is understood from Python 3.11 on.
        date = datetime.fromisoformat(re.sub("Z$", "+00:00", text))
    except ValueError as error:
        raise ValueError(
            f"`{name}` must be a date such as 2003-01-31, a timestamp or a share of the events between 0 and 1, got "
            f"{text!r}."
        ) from error
    if not _are_unix_seconds(times):
        raise ValueError(
            f"`{name}` must not be a date ({text}): the timestamps of this dataset go from {times.min()} to "
            f"{times.max()} and are no Unix seconds. Give a timestamp, or a share of the events such as 0.8."
        )
    return int((date if date.tzinfo else date.replace(tzinfo=timezone.utc)).timestamp())


def _check_cuts(cuts: list[int], times: npt.NDArray[np.int64]) -> None:
    first, last = int(times.min()), int(times.max())
    for name, cut in zip(("validation_from", "test_from"), cuts, strict=True):
        if not first < cut <= last:
            raise ValueError(
                f"`{name}` must be after the first event and not after the last one, {first} < cut <= {last}, got "
                f"{cut}. Nothing would be {'before' if cut <= first else 'after'} it."
            )
    if cuts[0] >= cuts[1]:
        raise ValueError(
            f"`validation_from` must be before `test_from`, got {cuts[0]} and {cuts[1]}. Where many events have the "
            "same timestamp, two shares of the events can be one moment."
        )


def _events_before(cut: int, times: npt.NDArray[np.int64], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many events of each user are before a moment, `(n_users,)`."""
    counts = np.zeros(len(offsets) - 1, dtype=np.int64)
    has_events = np.flatnonzero(np.diff(offsets))
    counts[has_events] = np.add.reduceat(times < cut, offsets[has_events], dtype=np.int64)
    return counts
