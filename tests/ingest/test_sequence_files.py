import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hf_seqrec.ingest.sequence_files as sequence_files
from hf_seqrec.ingest.sequence_files import write_sequences


def batches(n, sizes):
    events = pa.table({"row": pa.array(range(1, n + 1)), "timestamp": pa.array(range(n))}).to_batches()[0]
    starts = np.cumsum([0, *sizes])
    return (events.slice(start, stop - start) for start, stop in zip(starts, [*starts[1:], n], strict=True))


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.data())
def test_every_event_once_in_any_number_of_files(tmp_path_factory, lengths, data):
    folder = tmp_path_factory.mktemp("sequences")
    shards = data.draw(st.integers(1, len(lengths)))
    sizes = data.draw(st.lists(st.integers(0, 5), max_size=10).filter(lambda sizes: sum(sizes) <= sum(lengths)))
    users = pa.array([f"user {number}" for number in range(len(lengths))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequence_files, "_EVENTS_PER_ROW_GROUP", 7)
        write_sequences(folder, users, np.array(lengths), batches(sum(lengths), sizes), shards)
    files = sorted(folder.iterdir())
    assert len(files) == shards
    for file in files:
        metadata = pq.read_metadata(file)
        assert all(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
    table = pa.concat_tables([pq.read_table(file) for file in files])
    assert table["user_id"].to_pylist() == users.to_pylist()
    assert [len(history) for history in table["item_ids"].to_pylist()] == lengths
    flat = {name: table[name].combine_chunks().flatten().to_pylist() for name in ("item_ids", "timestamps")}
    assert flat == {"item_ids": list(range(1, sum(lengths) + 1)), "timestamps": list(range(sum(lengths)))}


def test_shards_hold_about_as_many_events(tmp_path):
    lengths = np.array([100, 1, 1, 1, 1, 96, 50, 50])
    write_sequences(tmp_path, pa.array(list("abcdefgh")), lengths, batches(300, []), num_shards=3)
    tables = [pq.read_table(file) for file in sorted(tmp_path.iterdir())]
    assert [table["user_id"].to_pylist() for table in tables] == [["a"], ["b", "c", "d", "e", "f"], ["g", "h"]]


def test_more_shards_than_users(tmp_path):
    with pytest.raises(ValueError, match="between 1 and the 2 users, got 3"):
        write_sequences(tmp_path, pa.array(["a", "b"]), np.array([1, 1]), batches(2, []), num_shards=3)
