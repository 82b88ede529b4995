"""From events in order to Parquet files with one row per user."""

from collections.abc import Iterator
from pathlib import Path

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
    stream = _Events(events)
    for shard, (first, last) in enumerate(_parts(stops, num_shards)):
        path = folder / f"part-{shard:05d}.parquet"
        with pq.ParquetWriter(path, SCHEMA, compression="zstd", use_dictionary=False) as file:
            before = int(stops[first - 1]) if first else 0
            in_shard = stops[first:last] - before
            groups = min(-(-int(in_shard[-1]) // _EVENTS_PER_ROW_GROUP), last - first)
            for begin, end in _parts(in_shard, groups):
                users = slice(first + begin, first + end)
                file.write_table(_table(user_ids[users], lengths[users], stream))
    stream.check_is_over()


def _parts(stops: npt.NDArray[np.int64], n: int) -> list[tuple[int, int]]:
    """Cut users into n consecutive parts of about as many events, each of one user or more."""
    ends = np.searchsorted(stops, stops[-1] * np.arange(1, n + 1) / n, side="left") + 1
    # Every part has a user, and leaves one for each part after it.
    ends = np.maximum.accumulate(ends - np.arange(n)) + np.arange(n)
    ends = np.minimum(ends, len(stops) - np.arange(n - 1, -1, -1))
    return list(zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True))


def _table(user_ids: pa.Array, lengths: npt.NDArray[np.int64], stream: "_Events") -> pa.Table:
    rows, timestamps = stream.take(int(lengths.sum()))
    offsets = pa.array(np.concatenate([[0], lengths.cumsum()]).astype(np.int32))
    lists = [pa.ListArray.from_arrays(offsets, values) for values in (rows, timestamps)]
    return pa.table([user_ids, *lists], schema=SCHEMA)


class _Events:
    """Takes so many events at a time from batches of any size."""

    def __init__(self, batches: Iterator[pa.RecordBatch]):
        self.batches, self.rest = batches, None

    def take(self, n: int) -> tuple[pa.Array, pa.Array]:
        """Give the rows and timestamps of the next n events."""
        taken: list[pa.RecordBatch] = []
        while n:
            batch = self.rest if self.rest is not None and len(self.rest) else next(self.batches)
            taken.append(batch.slice(0, n))
            self.rest = batch.slice(len(taken[-1]))
            n -= len(taken[-1])
        table = pa.Table.from_batches(taken).combine_chunks()
        rows, timestamps = table["row"].chunk(0), table["timestamp"].chunk(0)
        return rows.cast(pa.int32()), timestamps.cast(pa.int64())

    def check_is_over(self) -> None:
        """Let a producer of events finish; there is none left."""
        left = sum(len(batch) for batch in self.batches) + (len(self.rest) if self.rest is not None else 0)
        assert left == 0, f"{left} events more than the histories are long"
