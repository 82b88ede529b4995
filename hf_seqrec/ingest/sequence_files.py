"""From events in order to Parquet files with one row per user."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

# Events of one row group, which is what a reader that streams the file holds at a time.
_EVENTS_PER_ROW_GROUP = 1_000_000
# Events of one file, where nobody says how many files.
_EVENTS_PER_SHARD = 25_000_000

SCHEMA = pa.schema({"user_id": pa.string(), "item_ids": pa.list_(pa.int32()), "timestamps": pa.list_(pa.int64())})


def write_sequences(
    folder: Path,
    user_ids: pa.Array,
    lengths: npt.NDArray[np.int64],
    events: Iterator[pa.RecordBatch],
    num_shards: int | None = None,
) -> None:
    r"""
    Write histories as `part-*.parquet`, holding one row group at a time.

    Args:
        folder (`Path`): Where to; exists.
        user_ids (`pyarrow.StringArray` of `(n_users,)`): Raw ids.
        lengths (`(n_users,)` int64): Events of each user, at least one.
        events (`Iterator[pyarrow.RecordBatch]`): `row` and `timestamp` of every event, user by user, oldest first.
        num_shards (`int`, *optional*): Number of files; one for every 25 million events when left out.

    Raises:
        ValueError: if there are fewer users than shards.
    """
    stops = lengths.cumsum()
    n_events = int(stops[-1])
    num_shards = num_shards or min(-(-n_events // _EVENTS_PER_SHARD), len(lengths))
    if not 1 <= num_shards <= len(lengths):
        raise ValueError(
            f"`num_shards` must be between 1 and the {len(lengths):,} users, got {num_shards}: a history is not cut."
        )
    stream = EventStream(events, ("row", "timestamp"))
    with HistoryFiles(folder) as files:
        for shard, (first, last) in enumerate(_parts(stops, num_shards)):
            in_shard = stops[first:last] - (int(stops[first - 1]) if first else 0)
            groups = min(-(-int(in_shard[-1]) // _EVENTS_PER_ROW_GROUP), last - first)
            for begin, end in _parts(in_shard, groups):
                users = slice(first + begin, first + end)
                rows, timestamps = stream.take(int(lengths[users].sum()))
                table = histories_table(user_ids[users], lengths[users], rows, timestamps)
                files.write(f"part-{shard:05d}.parquet", table)
    assert not stream.has_more(), "more events than the histories are long"


class HistoryFiles:
    """Parquet files of histories in one folder, written one after the other, a row group at a time."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.name: str | None = None
        self.writer: pq.ParquetWriter | None = None

    def __enter__(self) -> "HistoryFiles":
        return self

    def __exit__(self, *error: Any) -> None:
        if self.writer is not None:
            self.writer.close()

    def write(self, name: str, table: pa.Table) -> None:
        """Write a row group into this file; another name than before begins the next file."""
        if name != self.name:
            if self.writer is not None:
                self.writer.close()
            self.name = name
            self.writer = pq.ParquetWriter(self.folder / name, SCHEMA, compression="zstd", use_dictionary=False)
        assert self.writer is not None
        self.writer.write_table(table)


def histories_table(user_ids: pa.Array, lengths: npt.NDArray[np.int64], rows: Any, timestamps: Any) -> pa.Table:
    """Give users' histories as a table: `user_ids` and `lengths` `(n_users,)`, all events `(n_events,)` in order."""
    offsets = pa.array(np.concatenate([[0], lengths.cumsum()]).astype(np.int32))
    values = (rows.cast(pa.int32()), timestamps.cast(pa.int64()))
    return pa.table([user_ids, *(pa.ListArray.from_arrays(offsets, array) for array in values)], schema=SCHEMA)


def _parts(stops: npt.NDArray[np.int64], n: int) -> list[tuple[int, int]]:
    """Cut users into n consecutive parts of about as many events, each of one user or more."""
    ends = np.searchsorted(stops, stops[-1] * np.arange(1, n + 1) / n, side="left") + 1
    # Every part has a user, and leaves one for each part after it.
    ends = np.maximum.accumulate(ends - np.arange(n)) + np.arange(n)
    ends = np.minimum(ends, len(stops) - np.arange(n - 1, -1, -1))
    return list(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True))


class EventStream:
    """Takes so many events at a time from batches of any size."""

    def __init__(self, batches: Iterator[pa.RecordBatch], columns: tuple[str, ...]):
        self.batches, self.columns = iter(batches), columns
        self.rest: pa.RecordBatch | None = None

    def has_more(self) -> bool:
        """Whether an event is left."""
        while self.rest is None or not len(self.rest):
            self.rest = next(self.batches, None)
            if self.rest is None:
                return False
        return True

    def take(self, n: int) -> list[pa.Array]:
        """Give the columns of the next n events."""
        taken: list[pa.RecordBatch] = []
        while n and self.has_more():
            assert self.rest is not None
            taken.append(self.rest.slice(0, n))
            self.rest = self.rest.slice(len(taken[-1]))
            n -= len(taken[-1])
        assert not n, f"{n} events are missing"
        return self._columns(taken)

    def take_users(self, stop: int) -> list[npt.NDArray[np.int64]]:
        """Give the columns of all events of users before `stop`; the first column is the user, rising."""
        taken: list[pa.RecordBatch] = []
        while self.has_more():
            assert self.rest is not None
            n = int(np.searchsorted(self.rest[self.columns[0]].to_numpy(), stop))
            taken.append(self.rest.slice(0, n))
            self.rest = self.rest.slice(n)
            if len(self.rest):
                break
        return [column.to_numpy(zero_copy_only=False).astype(np.int64) for column in self._columns(taken)]

    def user_after(self, first: int) -> int:
        """Give a user before whom there is about a row group of events, one after `first` or more."""
        assert self.rest is not None, "ask `has_more` first"
        users = self.rest[self.columns[0]]
        return max(int(users[min(len(users), _EVENTS_PER_ROW_GROUP) - 1].as_py()), first) + 1

    def _columns(self, taken: list[pa.RecordBatch]) -> list[pa.Array]:
        if not taken:
            return [pa.array([], pa.int64()) for _ in self.columns]
        table = pa.Table.from_batches(taken)
        return [table[name].combine_chunks() for name in self.columns]
