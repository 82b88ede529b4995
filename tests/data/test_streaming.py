import json
import weakref

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader

from hf_seqrec.baselines.popularity import popularity_baseline
from hf_seqrec.data import sharded_histories
from hf_seqrec.data.catalog import Catalog
from hf_seqrec.data.collators import NextItemCollator
from hf_seqrec.data.leave_one_out import leave_one_out
from hf_seqrec.data.sequences import load_sequences
from hf_seqrec.data.sharded_histories import ShardedHistories
from hf_seqrec.data.streaming import StreamedHistories, streamed_leave_one_out
from hf_seqrec.data.windows import sliding_windows

N_ITEMS = 50


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write 230 users of 1 to 40 events into three shards of row groups of at most 20."""
    path = tmp_path_factory.mktemp("data") / "folder"
    (path / "sequences").mkdir(parents=True)
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 41, 230)
    lengths[:8] = [1, 2, 3, 4, 1, 3, 5, 40]
    users = [rng.integers(1, N_ITEMS + 1, length).tolist() for length in lengths]
    for shard, (first, end) in enumerate([(0, 100), (100, 110), (110, 230)]):
        table = pa.table(
            {
                "user_id": [f"u{user}" for user in range(first, end)],
                "item_ids": pa.array(users[first:end], pa.list_(pa.int32())),
                "timestamps": pa.array([list(range(len(user))) for user in users[first:end]], pa.list_(pa.int64())),
            }
        )
        pq.write_table(table, path / f"sequences/part-{shard}.parquet", row_group_size=20)
    Catalog.from_items([f"i{row}" for row in range(1, N_ITEMS + 1)]).save(path)
    statistics = {"n_users": 230, "n_items": N_ITEMS, "n_interactions": int(lengths.sum())}
    (path / "statistics.json").write_text(json.dumps(statistics))
    return path


def stream_of(folder, **options):
    return StreamedHistories(folder, **({"batch_size": 7, "max_length": 10, "buffer_size": 30} | options))


def windows_of(batches):
    """Each window as (user, number of the window, items), in the order of the batches."""
    found = []
    for (batch,) in batches:
        numbers = np.zeros(len(batch.users), dtype=int) if batch.windows is None else batch.windows
        for user, number, start, stop in zip(batch.users, numbers, batch.starts, batch.stops, strict=True):
            found.append((int(user), int(number), tuple(batch.item_rows[start:stop].tolist())))
    return found


def in_memory(folder, window):
    train = leave_one_out(load_sequences(folder)).train
    if window == "sliding":
        train = sliding_windows(train, 10)
    expected = windows_of([train.__getitems__(range(len(train)))])
    return [(user, number, items[-11:] if window == "last" else items) for user, number, items in expected]


def collected(folder, world_size, workers, epoch=0, **options):
    """All that an epoch gives, process after process, as a DataLoader without or with workers makes it."""
    given = []
    for rank in range(world_size):
        stream = stream_of(folder, rank=rank, world_size=world_size, num_workers=workers, **options)
        stream.set_epoch(epoch)
        batches = list(DataLoader(stream, batch_size=None, num_workers=workers, collate_fn=list))
        assert len(batches) == len(stream)
        given.append(batches)
    return given


@pytest.mark.parametrize("window", ["last", "random", "sliding"])
def test_an_epoch_is_every_history_once(folder, window):
    (batches,) = collected(folder, 1, 0, window=window)
    assert sorted(windows_of(batches)) == sorted(in_memory(folder, window))
    assert {len(batch.users) for (batch,) in batches[:-1]} == {7}


@pytest.mark.parametrize(("world_size", "workers"), [(1, 2), (2, 0), (2, 2)])
def test_processes_and_workers_share_the_histories(folder, world_size, workers):
    ranks = collected(folder, world_size, workers)
    assert len({len(batches) for batches in ranks}) == 1
    expected = sorted(in_memory(folder, "last"))
    # Here all processes have as many batches, so nothing is repeated.
    assert sorted(window for batches in ranks for window in windows_of(batches)) == expected
    sizes = [len(windows_of(batches)) for batches in ranks]
    assert max(sizes) - min(sizes) <= 1


def test_a_process_with_fewer_batches_repeats_its_first(folder):
    # Windows of the users of the first half and the second: one has a batch more.
    streams = [stream_of(folder, batch_size=1, window="sliding", rank=rank, world_size=3) for rank in range(3)]
    ranks = [windows_of(stream) for stream in streams]
    assert len({len(windows) for windows in ranks}) == 1
    expected = in_memory(folder, "sliding")
    given = [window for windows in ranks for window in windows]
    n_repeated = len(given) - len(expected)
    assert n_repeated == 3 * len(streams[0]) - len(expected) > 0
    assert set(given) == set(expected)
    for windows in ranks:
        # What is there twice was the first of the epoch.
        repeated = [window for place, window in enumerate(windows) if window in windows[:place]]
        assert windows[len(windows) - len(repeated) :] == windows[: len(repeated)]


def test_the_order_follows_from_seed_and_epoch(folder):
    def order(seed=0, epoch=0, workers=0):
        return windows_of(collected(folder, 1, workers, epoch, seed=seed)[0])

    assert order() == order()
    assert order(workers=2) == order(workers=2)
    assert order() != order(epoch=1)
    assert order() != order(seed=1)
    assert sorted(order()) == sorted(order(epoch=1)) == sorted(order(seed=1))
    # Neighbours on disk are no neighbours in a batch.
    users = np.array([user for user, *_ in order()])
    assert abs(np.corrcoef(users, np.arange(len(users)))[0, 1]) < 0.6
    assert (np.abs(np.diff(users)) == 1).mean() < 0.2


def test_workers_that_outlive_an_epoch_hear_of_the_next(folder):
    stream = stream_of(folder, num_workers=1)
    loader = DataLoader(stream, batch_size=None, num_workers=1, persistent_workers=True, collate_fn=list)
    for epoch in (0, 3):
        stream.set_epoch(epoch)
        assert {batch.epoch for (batch,) in loader} == {epoch}


@pytest.mark.parametrize("window", ["last", "random", "sliding"])
def test_batches_are_those_of_memory(folder, window):
    # The same windows and the same draws, whichever way a user's history came.
    train = leave_one_out(load_sequences(folder)).train
    collator = NextItemCollator(10, window="random" if window == "random" else "last")
    view = sliding_windows(train, 10) if window == "sliding" else train
    (everything,) = view.__getitems__(range(len(view)))
    rows_of = collator([everything])
    places = {key: place for place, key in enumerate(keys(everything))}
    for batch in stream_of(folder, window=window):
        made = collator(batch)
        for row, key in enumerate(keys(batch[0])):
            for name, tensor in made.items():
                whole = rows_of[name][places[key]]
                assert torch.equal(tensor[row], whole[: tensor.shape[1]])


def keys(batch):
    windows = np.zeros(len(batch.users), dtype=int) if batch.windows is None else batch.windows
    return list(zip(batch.users.tolist(), windows.tolist(), strict=True))


def test_memory_holds_a_row_group_and_the_buffer(folder, monkeypatch):
    stream = stream_of(folder, max_length=5)
    read, give_out = ShardedHistories.read, StreamedHistories._give_out
    row_groups, alive_at_once, held = [], [], []

    class Events(np.ndarray):
        """An array that can be referred to weakly."""

    def spy_on_reading(files, group):
        rows, offsets = read(files, group)
        rows = rows.view(Events)
        row_groups.append(weakref.ref(rows))
        alive_at_once.append(sum(reference() is not None for reference in row_groups))
        return rows, offsets

    def spy_on_buffer(self, buffer, rng, keep_rest):
        held.append((sum(len(part.users) for part in buffer), sum(len(part.item_rows) for part in buffer)))
        return (yield from give_out(self, buffer, rng, keep_rest))

    monkeypatch.setattr(ShardedHistories, "read", spy_on_reading)
    monkeypatch.setattr(StreamedHistories, "_give_out", spy_on_buffer)
    kept = list(stream)
    assert alive_at_once == [1] * 12
    # 30 windows make it full; the row group that does adds at most 20, what is left of the last buffer at most 6.
    assert max(windows for windows, _ in held) < 30 + 20
    assert all(events <= 6 * windows for windows, events in held)
    # Not even whoever keeps all batches keeps more than their own events.
    assert all(len(batch.item_rows) == (batch.stops - batch.starts).sum() for (batch,) in kept)


def test_popularity_is_counted_on_the_way(folder):
    splits = leave_one_out(load_sequences(folder))
    streamed = streamed_leave_one_out(stream_of(folder), n_evaluated=1000)
    np.testing.assert_array_equal(streamed.train.item_counts(), splits.train.item_counts())
    assert popularity_baseline(streamed.train, streamed.test) == popularity_baseline(splits.train, splits.test)
    assert list(streamed.counts.values()) == list(splits.counts.values())
    assert "drawn at random" not in streamed.protocol


def test_a_sample_to_evaluate(folder):
    sequences = load_sequences(folder)
    streamed = streamed_leave_one_out(stream_of(folder), n_evaluated=60, seed=3)
    sample = streamed.test.sequences
    assert len(sample) == 60
    for position, user_id in enumerate(sample.user_ids.to_pylist()):
        np.testing.assert_array_equal(sample.history(position), sequences.history(user_id))
    assert (
        streamed_leave_one_out(stream_of(folder), 60, seed=3).test.targets.tolist() == streamed.test.targets.tolist()
    )
    assert "drawn at random" in streamed.protocol
    assert streamed.counts["users evaluated"] == len(streamed.test) < 60
    assert sample.statistics["n_users"] == 230


def test_other_file_systems(folder):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(folder), "/streamed", recursive=True)
    there = stream_of("memory://streamed")
    assert windows_of(there) == windows_of(stream_of(folder))


def test_a_dataset_on_the_hub_is_read_where_it_is(monkeypatch):
    asked = []
    monkeypatch.setattr(sharded_histories, "fetch_dataset", lambda *request: asked.append(request))
    assert sharded_histories._address("org/listening") == "hf://datasets/org/listening"
    assert asked == [("org/listening", None, ["catalog.parquet"])]


def test_neither_a_folder_nor_on_the_hub():
    with pytest.raises(FileNotFoundError, match="'nobody/nothing-of-the-kind' is neither"):
        stream_of("nobody/nothing-of-the-kind")


def test_wrong_arguments(folder, tmp_path):
    for options, message in (
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"buffer_size": 0}, "`buffer_size` must be at least 1"),
        ({"window": "first"}, '"last", "random" or "sliding", got \'first\''),
        ({"window": "sliding", "stride": 11}, "between 1 and `max_length`, 10, got 11"),
        ({"rank": 2, "world_size": 2}, "one of the 2 processes, 0 to 1, got 2"),
        ({"world_size": 1000}, r"each of the 1000 workers of all processes, found 2\d\d in 230 histories"),
    ):
        with pytest.raises(ValueError, match=message):
            stream_of(folder, **options)
    with pytest.raises(FileNotFoundError, match=r"must be a dataset folder, with catalog\.parquet"):
        stream_of(tmp_path)
    with pytest.raises(ValueError, match="must be that of the stream, 1, got 2"):
        next(iter(DataLoader(stream_of(folder), batch_size=None, num_workers=2)))
    with pytest.raises(ValueError, match="`n_evaluated` must be at least 1"):
        streamed_leave_one_out(stream_of(folder), 0)


def test_damaged_folders(folder, tmp_path):
    import shutil

    shutil.copytree(folder, tmp_path / "copy")
    (tmp_path / "copy/statistics.json").unlink()
    stream = stream_of(tmp_path / "copy")
    with pytest.raises(ValueError, match=r"must have statistics\.json"):
        streamed_leave_one_out(stream, 10)
    Catalog.from_items(["only", "two"]).save(tmp_path / "copy")
    with pytest.raises(ValueError, match=r"part-0.parquet, row group 0: item rows must be in 1\.\.2"):
        stream_of(tmp_path / "copy")
    part = tmp_path / "copy/sequences/part-1.parquet"
    part.write_bytes(part.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"part-1.parquet is not a readable Parquet file"):
        stream_of(tmp_path / "copy")
