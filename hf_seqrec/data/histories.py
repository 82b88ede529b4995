"""Histories as views of the flat array of all events: what a batch is made from. Nothing is copied."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from .sequences import Sequences


@dataclass(frozen=True)
class HistoryBatch:
    """
    Some users' histories as places in the flat array of all events. Collators take a list of these.

    Fields:
        item_rows (`(n_events,)` int32): Every event of the dataset, shared, not copied.
        starts, stops (`(b,)` int64): User i's history is `item_rows[starts[i]:stops[i]]`, oldest first.
        targets (`(b,)` int64 or `None`): The item that follows each history; `None` in training.
        users (`(b,)` int64): Position of each user in the dataset folder.
        epoch (`int`): Which pass over the data this is; random windows depend on it.
        windows (`(b,)` int64, *optional*): Which window of its user's history each is, where a user has several.
    """

    item_rows: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]
    stops: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64] | None
    users: npt.NDArray[np.int64]
    epoch: int = 0
    windows: npt.NDArray[np.int64] | None = None

    @classmethod
    def join(cls, examples: "Sequence[HistoryBatch]") -> "HistoryBatch":
        """Join batches of one dataset, such as the single histories that `dataset[i]` returns."""
        first = examples[0]
        if len(examples) == 1:
            return first
        if any(example.item_rows is not first.item_rows for example in examples):
            # Parts of the events, as a stream holds them: put one behind the other.
            item_rows = np.concatenate([example.item_rows for example in examples])
            shifts = np.cumsum([0] + [len(example.item_rows) for example in examples[:-1]])
            examples = [
                replace(example, item_rows=item_rows, starts=example.starts + shift, stops=example.stops + shift)
                for example, shift in zip(examples, shifts, strict=True)
            ]
            first = examples[0]
        targets = [example.targets for example in examples if example.targets is not None]
        windows = [example.windows for example in examples if example.windows is not None]
        return cls(
            first.item_rows,
            np.concatenate([example.starts for example in examples]),
            np.concatenate([example.stops for example in examples]),
            np.concatenate(targets) if targets else None,
            np.concatenate([example.users for example in examples]),
            first.epoch,
            np.concatenate(windows) if windows else None,
        )

    def select(self, chosen: npt.NDArray[Any]) -> "HistoryBatch":
        """Take some of the histories, by position or by a mask, in this order."""
        return replace(
            self,
            starts=self.starts[chosen],
            stops=self.stops[chosen],
            targets=None if self.targets is None else self.targets[chosen],
            users=self.users[chosen],
            windows=None if self.windows is None else self.windows[chosen],
        )

    def compact(self) -> "HistoryBatch":
        """Copy the events of these histories, and only them."""
        lengths = self.stops - self.starts
        stops = np.cumsum(lengths)
        return replace(
            self, item_rows=self.item_rows[places(self.starts, self.stops)], starts=stops - lengths, stops=stops
        )


class HistoryDataset(Dataset):
    """
    One history per user, for a `DataLoader` with one of the collators of this package.

    A batch is fetched by `__getitems__` as a list of one `HistoryBatch`, never as a list of dicts.

    Args:
        sequences (`Sequences`): The dataset.
        users (`(n,)` int64): Which users, as positions in `sequences`.
        starts, stops (`(n,)` int64): Their histories as places in `sequences.item_rows`.
        has_targets (`bool`): Whether the event at each `stops` is what the model shall rank.
        windows (`(n,)` int64, *optional*): Which window of its user's history each is, where a user has several.
    """

    def __init__(
        self,
        sequences: Sequences,
        users: npt.NDArray[np.int64],
        starts: npt.NDArray[np.int64],
        stops: npt.NDArray[np.int64],
        has_targets: bool,
        windows: npt.NDArray[np.int64] | None = None,
    ):
        self.sequences = sequences
        self.users, self.starts, self.stops, self.windows = users, starts, stops, windows
        self.targets = sequences.item_rows[stops].astype(np.int64) if has_targets else None
        # In shared memory, so that it also reaches DataLoader workers that live longer than an epoch.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """The current pass over the data; see `set_epoch`."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """
        Say which pass over the data begins. Random windows are drawn from (seed, epoch, user).

        `ShuffledSampler` calls this. Without that sampler call it at the beginning of each epoch: Accelerate does so
        only where its own sampler has no `set_epoch`, which is neither under several processes nor when a run is
        resumed.
        """
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, index: int) -> HistoryBatch:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[HistoryBatch]:
        chosen = np.asarray(indices, dtype=np.int64)
        targets = None if self.targets is None else self.targets[chosen]
        windows = None if self.windows is None else self.windows[chosen]
        return [
            HistoryBatch(
                self.sequences.item_rows,
                self.starts[chosen],
                self.stops[chosen],
                targets,
                self.users[chosen],
                self.epoch,
                windows,
            )
        ]

    def history(self, index: int) -> npt.NDArray[np.int32]:
        """Rows of one history, `(l,)`, oldest first."""
        return self.sequences.item_rows[self.starts[index] : self.stops[index]]

    def events(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Rows of all events of the view, and for each the position of its history in the view, `(n_events,)` each."""
        lengths = self.stops - self.starts
        rows = self.sequences.item_rows[places(self.starts, self.stops)].astype(np.int64)
        return rows, np.repeat(np.arange(len(lengths)), lengths)

    def item_counts(self) -> npt.NDArray[np.int64]:
        """How often each catalog row is in the histories of the view, `(vocab_size,)`; 0 for the padding row."""
        # +1 where a history begins and -1 where it ends: above 0 inside of one.
        inside = np.zeros(len(self.sequences.item_rows) + 1, dtype=np.int32)
        np.add.at(inside, self.starts, 1)
        np.subtract.at(inside, self.stops, 1)
        times = np.cumsum(inside[:-1], out=inside[:-1])
        counts = np.bincount(self.sequences.item_rows, weights=times, minlength=self.sequences.catalog.vocab_size)
        return counts.astype(np.int64)

    def fingerprint(self) -> str:
        """Return what tells these histories, their users and windows from others: of all of it, in hexadecimal."""
        windows = [] if self.windows is None else [self.windows]
        return fingerprint_of(self.sequences.item_rows, self.users, self.starts, self.stops, *windows)


def fingerprint_of(*arrays: npt.NDArray[Any]) -> str:
    """Return a short hash, in hexadecimal, of the values of arrays."""
    digest = hashlib.blake2b(digest_size=8)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def places(starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Every place of every history, one history after the other."""
    lengths = stops - starts
    firsts = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) + np.repeat(starts - firsts, lengths)
