"""
Training histories that do not fit into memory: read from the shards of a dataset folder as they are needed.

Of the histories a process holds what it shuffles: one row group of a Parquet file and a buffer. Once, at the
beginning, all shards are read to count: how long an epoch is, how its windows are shared out, how popular items are.
"""

import hashlib
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import IterableDataset, get_worker_info

from .histories import HistoryBatch, HistoryDataset
from .leave_one_out import leave_one_out, training_stops
from .sharded_histories import RowGroup, ShardedHistories
from .windows import check_stride, count_windows, cut_into_windows


class StreamedHistories(IterableDataset):
    r"""
    The training histories of leave-one-out, batch by batch from disk or from the Hub.

    Made for a `DataLoader` with `batch_size=None`, because it gives whole batches: each a list of one
    [`HistoryBatch`], as the collators of this package take it. What a window holds, and what is drawn at random for
    it, is the same as with [`leave_one_out`] in memory; the order is another.

    Every process and `DataLoader` worker reads a range of users of its own, cut so that all have the same number of
    windows, give or take one history's. Ranges do not depend on where shards begin, so few shards are no limit: a row
    group on the border is read by both. Within its range a worker goes through the row groups in an order drawn from
    (seed, epoch, worker), and fills a buffer of `buffer_size` windows, which it gives out shuffled. So windows that
    are far apart on disk are in one batch only if a buffer holds several row groups, and a larger buffer is closer to
    a full shuffle. Everything follows from (seed, epoch, number of processes and workers): a resumed run skips the
    batches that it has seen, which means reading them again, and goes on as if it had never stopped.

    Each history is seen once an epoch, with one exception: where processes have different numbers of batches, those
    with fewer repeat their first ones (usually one), so that nobody waits for them forever.

    Args:
        folder (`str`): A dataset folder, the id of a dataset on the Hub, or an address that fsspec opens
            (`s3://...`, `hf://datasets/...`).
        batch_size (`int`): Windows of a batch.
        max_length (`int`): Most positions that the model sees.
        window (`str`, *optional*, defaults to `"last"`):
            `"last"`: the most recent events; `"sliding"`: windows over all of a history, see [`sliding_windows`];
            `"random"`: the whole history, of which the collator draws a part.
        stride (`int`, *optional*): Of sliding windows.
        seed (`int`, *optional*, defaults to 0): Of the order.
        buffer_size (`int`, *optional*, defaults to 50_000): Windows that are shuffled together.
        rank, world_size (`int`, *optional*, default to 0 and 1): Which process this is, of how many.
        num_workers (`int`, *optional*, defaults to 0): That of the `DataLoader`.

    Raises:
        FileNotFoundError: if there is no dataset folder.
        ValueError: if an argument is out of range, a file is damaged, or there is less than a window for each worker.

    Example:

    ```python
    >>> stream = StreamedHistories("org/listening-events", batch_size=64, max_length=200, window="sliding")
    >>> loader = DataLoader(stream, batch_size=None, collate_fn=NextItemCollator(200))
    ```
    """

    def __init__(
        self,
        folder: str | Path,
        batch_size: int,
        max_length: int,
        window: str = "last",
        stride: int | None = None,
        seed: int = 0,
        buffer_size: int = 50_000,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
    ):
        for name, value in (("batch_size", batch_size), ("max_length", max_length), ("buffer_size", buffer_size)):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        if window not in ("last", "random", "sliding"):
            raise ValueError(f'`window` must be "last", "random" or "sliding", got {window!r}.')
        if not 0 <= rank < world_size:
            raise ValueError(f"`rank` must be one of the {world_size} processes, 0 to {world_size - 1}, got {rank}.")
        self.stride = max_length if stride is None else stride
        check_stride(self.stride, max_length)
        self.batch_size, self.max_length, self.window = batch_size, max_length, window
        self.seed, self.buffer_size, self.rank, self.world_size = seed, buffer_size, rank, world_size
        self.n_workers = max(num_workers, 1)

        self.files = ShardedHistories(folder)
        # One range of users for each worker of each process: the first ranges are the first process's.
        n_ranges = world_size * self.n_workers
        lengths, self._item_counts, self._events_hash = self._count()
        self.bounds, n_windows = self._share_out(lengths, n_ranges)
        self.n_skipped = int((lengths < 2).sum())
        self.n_histories, self.n_windows = len(lengths) - self.n_skipped, int(n_windows.sum())
        batches = -(-n_windows // batch_size).reshape(world_size, self.n_workers)
        # Worker by worker what the process with the most batches has: all give the same number.
        self.n_batches = batches.max(axis=0)
        # In shared memory, so that it also reaches DataLoader workers that live longer than an epoch.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    @property
    def epoch(self) -> int:
        """The current pass over the data; see `set_epoch`."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Say which pass over the data begins. The Trainer and Accelerate do."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        """Batches that this process gives in an epoch."""
        return int(self.n_batches.sum())

    def item_counts(self) -> npt.NDArray[np.int64]:
        """How often each catalog row is in the training histories, `(vocab_size,)`; 0 for the padding row."""
        return self._item_counts

    def whole_histories(self) -> Iterator[HistoryBatch]:
        """Yield the training histories of all users, whatever the window and the process, a row group at a time."""
        for group in self.files.groups:
            item_rows, offsets = self.files.read(group)
            users = np.arange(group.first_user, group.end_user)
            stops = training_stops(offsets[:-1], offsets[1:])
            histories = HistoryBatch(item_rows, offsets[:-1], stops, None, users)
            yield histories.select(stops - offsets[:-1] >= 2).compact()

    def fingerprint(self) -> str:
        """Return what tells these histories and their windows from others, whoever reads them, in hexadecimal."""
        return f"{self._events_hash}-{self.window}-{self.max_length}-{self.stride}"

    def __iter__(self) -> Iterator[list[HistoryBatch]]:
        info = get_worker_info()
        worker, n_workers = (0, 1) if info is None else (info.id, info.num_workers)
        if n_workers != self.n_workers:
            raise ValueError(
                f"`num_workers` of the DataLoader must be that of the stream, {self.n_workers}, got {n_workers}. Pass "
                "`num_workers` to `StreamedHistories`."
            )
        share = self.rank * self.n_workers + worker
        n_given = 0
        while n_given < self.n_batches[worker]:
            for batch in self._pass(share):
                if n_given == self.n_batches[worker]:
                    return
                yield [batch]
                n_given += 1

    def _pass(self, share: int) -> Iterator[HistoryBatch]:
        """Give every window of a range of users once, shuffled within a buffer."""
        first, end = int(self.bounds[share]), int(self.bounds[share + 1])
        rng = np.random.default_rng((self.seed, self.epoch, share))
        groups = [group for group in self.files.groups if group.first_user < end and first < group.end_user]
        buffer: list[HistoryBatch] = []
        for number in rng.permutation(len(groups)):
            buffer.append(self._windows(groups[number], first, end))
            if sum(len(held.users) for held in buffer) >= self.buffer_size:
                rest = yield from self._give_out(buffer, rng, keep_rest=True)
                buffer = [rest]
        if buffer:
            yield from self._give_out(buffer, rng, keep_rest=False)

    def _windows(self, group: "RowGroup", first: int, end: int) -> HistoryBatch:
        """Read the windows of those users of a row group that are in the range."""
        item_rows, offsets = self.files.read(group)
        users = np.arange(max(first, group.first_user), min(end, group.end_user))
        starts = offsets[users - group.first_user]
        stops = training_stops(starts, offsets[users - group.first_user + 1])
        can_learn = stops - starts >= 2
        if self.window == "last":
            starts = np.maximum(starts, stops - (self.max_length + 1))
        # The copy lets go of the row group: of the users of others, of held-out items, of all but the last window.
        histories = HistoryBatch(item_rows, starts, stops, None, users, self.epoch).select(can_learn).compact()
        if self.window != "sliding":
            return histories
        windows = cut_into_windows(histories.starts, histories.stops, self.max_length, self.stride)
        return replace(
            histories,
            starts=windows.starts,
            stops=windows.stops,
            users=histories.users[windows.histories],
            windows=windows.numbers,
        )

    def _give_out(
        self, buffer: list[HistoryBatch], rng: np.random.Generator, keep_rest: bool
    ) -> Generator[HistoryBatch, None, HistoryBatch]:
        """Give the windows in batches, and return those that do not fill one."""
        held = HistoryBatch.join(buffer)
        buffer.clear()
        order = rng.permutation(len(held.users))
        n_given = len(order) - (len(order) % self.batch_size if keep_rest else 0)
        for begin in range(0, n_given, self.batch_size):
            # A copy, or whoever keeps a batch would keep the whole buffer.
            yield held.select(order[begin : min(begin + self.batch_size, n_given)]).compact()
        return held.select(order[n_given:]).compact()

    def _count(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], str]:
        """Read everything once: training events of each user `(n_users,)` and item `(vocab_size,)`, and their hash."""
        lengths = []
        digest = hashlib.blake2b(digest_size=8)
        counts = np.zeros(self.files.n_items + 1, dtype=np.int64)
        for group in self.files.groups:
            item_rows, offsets = self.files.read(group)
            starts = offsets[:-1]
            stops = training_stops(starts, offsets[1:])
            lengths.append((stops - starts).astype(np.int32))
            histories = HistoryBatch(item_rows, starts, stops, None, starts)
            histories = histories.select(stops - starts >= 2).compact()
            counts += np.bincount(histories.item_rows, minlength=len(counts))
            digest.update(np.ascontiguousarray(histories.item_rows).data)
        all_lengths = np.concatenate(lengths)
        digest.update(all_lengths.data)
        return all_lengths, counts, digest.hexdigest()

    def _share_out(
        self, lengths: npt.NDArray[np.int32], n_ranges: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Cut the users into ranges with as many windows each: bounds `(n_ranges + 1,)`, windows `(n_ranges,)`."""
        windows = (lengths >= 2).astype(np.int64)
        if self.window == "sliding":
            windows *= count_windows(lengths.astype(np.int64), self.max_length, self.stride)
        until = np.cumsum(windows)
        total = int(until[-1])
        bounds = np.searchsorted(until, total * np.arange(n_ranges + 1) // n_ranges, side="left") + 1
        bounds[0], bounds[-1] = 0, len(lengths)
        n_windows = np.diff(np.append(0, until)[bounds])
        if not n_windows.all():
            raise ValueError(
                f"`folder` must have windows to train on for each of the {n_ranges} workers of all processes, found "
                f"{total} in {len(lengths)} histories. Take fewer `dataloader_num_workers` or processes."
            )
        return bounds, n_windows


class StreamedLeaveOneOut(NamedTuple):
    """
    Leave-one-out where training is streamed, and what is evaluated, a sample of the users, is in memory.

    Fields:
        train: The training histories of all users.
        validation, test: Histories of the sample with the target that follows.
        n_users: Users of the dataset.
    """

    train: StreamedHistories
    validation: HistoryDataset
    test: HistoryDataset
    n_users: int

    @property
    def protocol(self) -> str:
        """What was held out, as a card says it."""
        sampled = "" if len(self.test.sequences) == self.n_users else ", evaluated on users drawn at random"
        return f"leave-one-out (the last event of each user for test, the last but one for validation){sampled}"

    @property
    def counts(self) -> dict[str, int]:
        """Who takes part, and who is left out."""
        return {
            "users trained on": self.train.n_histories,
            "users evaluated": len(self.test),
            "users with fewer than 2 training events": self.train.n_skipped,
            "users not drawn, or with fewer than 3 events, not evaluated": self.n_users - len(self.test),
        }


def streamed_leave_one_out(stream: StreamedHistories, n_evaluated: int, seed: int = 0) -> StreamedLeaveOneOut:
    r"""
    Evaluate on some users, whose histories fit into memory, what is trained on the histories of all.

    Args:
        stream ([`StreamedHistories`]): What is trained on.
        n_evaluated (`int`): How many users to draw; all of them where there are no more.
        seed (`int`, *optional*, defaults to 0): Of the draw, which depends on nothing else.

    Raises:
        ValueError: if `n_evaluated` is below 1, or the folder has no statistics.
    """
    if n_evaluated < 1:
        raise ValueError(f"`n_evaluated` must be at least 1, got {n_evaluated}.")
    sequences = stream.files.sample(n_evaluated, seed)
    splits = leave_one_out(sequences)
    return StreamedLeaveOneOut(stream, splits.validation, splits.test, stream.files.n_users)
