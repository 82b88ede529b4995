import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_seqrec.data.catalog import Catalog
from hf_seqrec.data.sequences import Sequences, load_sequences


@pytest.fixture
def folder(tmp_path):
    """Two shards: users b (rows 1 2 1) and a (row 3), then c (nothing) and d (row 2)."""
    Catalog.from_items(["x", "y", "z"]).save(tmp_path)
    (tmp_path / "sequences").mkdir()
    for shard, (users, items, times) in enumerate(
        [(["b", "a"], [[1, 2, 1], [3]], [[5, 6, 7], [1]]), (["c", "d"], [[], [2]], [[], [9]])]
    ):
        write_shard(tmp_path, shard, users, pa.array(items, pa.list_(pa.int32())), times)
    return tmp_path


def write_shard(folder, shard, users, items, times):
    table = pa.table({"user_id": users, "item_ids": items, "timestamps": times})
    pq.write_table(table, folder / "sequences" / f"part-{shard:05d}.parquet")


def test_load(folder):
    sequences = load_sequences(folder)
    assert str(sequences) == "4 users / 3 items / 5 interactions"
    assert (sequences.n_users, sequences.n_items, sequences.n_interactions, len(sequences)) == (4, 3, 5, 4)
    assert sequences.item_rows.tolist() == [1, 2, 1, 3, 2]
    assert sequences.item_rows.dtype == np.int32
    assert sequences.offsets.tolist() == [0, 3, 4, 4, 5]
    assert sequences.user_ids.to_pylist() == ["b", "a", "c", "d"]
    assert sequences.timestamps is None
    assert load_sequences(folder, timestamps=True).timestamps.tolist() == [5, 6, 7, 1, 9]


def test_one_history(folder):
    sequences = load_sequences(folder)
    assert sequences.history("d").tolist() == [2]
    assert sequences.history(0).tolist() == [1, 2, 1]
    for nobody in ("e", 4, -1):
        with pytest.raises(ValueError, match="4 users"):
            sequences.history(nobody)


def test_one_shard_is_not_copied(folder):
    (folder / "sequences" / "part-00001.parquet").unlink()
    sequences = load_sequences(folder)
    assert not sequences.item_rows.flags.owndata  # a view of Arrow's memory


@pytest.mark.parametrize("row", [0, 4, -1])
def test_rows_out_of_range(folder, row):
    write_shard(folder, 2, ["e", "f"], [[1], [1, row]], [[1], [1, 2]])
    with pytest.raises(ValueError, match=rf"1\.\.3.*got {row} for user 'f' \(1 such"):
        load_sequences(folder)


def test_a_column_is_missing(folder):
    pq.write_table(pa.table({"user": ["a"], "item_ids": [[1]]}), folder / "sequences" / "part-00002.parquet")
    with pytest.raises(ValueError, match=r"part-00002.*user_id missing, found \['user', 'item_ids'\]"):
        load_sequences(folder)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["1 2"], "must be a list of integers for each user, found string"),
        ([[1.5]], "integers and no nulls, found double"),
        ([[1, None]], "with 1 nulls"),
        ([[2**40]], "int32"),
        ([None], "none for some"),
    ],
)
def test_columns_of_the_wrong_type(folder, items, message):
    for path in (folder / "sequences").glob("*.parquet"):
        path.unlink()
    if items == [None]:
        items = pa.array(items, pa.list_(pa.int32()))
    write_shard(folder, 0, ["a"], items, [[1]])
    with pytest.raises(ValueError, match=message):
        load_sequences(folder)


def test_timestamps_of_another_length(folder):
    write_shard(folder, 2, ["e"], [[1, 2]], [[1]])
    assert load_sequences(folder).n_users == 5
    with pytest.raises(ValueError, match="same lengths"):
        load_sequences(folder, timestamps=True)


def test_a_damaged_file(folder):
    (folder / "sequences" / "part-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"part-00001\.parquet is not a readable Parquet file"):
        load_sequences(folder)


def test_a_foreign_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="must be a dataset folder"):
        load_sequences(tmp_path)


def test_no_folder_and_no_hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="neither"):
        load_sequences("nobody/nothing-of-the-kind")
    with pytest.raises(FileNotFoundError, match="neither"):
        load_sequences("no/such/folder")


def test_inconsistent_offsets():
    for offsets in ([0, 1], [0, 2, 1, 3], [1, 2, 3], [0, 1, 2]):
        with pytest.raises(ValueError, match="`offsets` must rise from 0 to the 3 events"):
            Sequences(
                np.ones(3, np.int32), np.array(offsets, np.int64), Catalog.from_items(["x"]), pa.array(["a", "b"])
            )


def test_a_finished_folder_needs_no_ibis(folder):
    code = f"""
import sys
for name in ("ibis", "duckdb", "torch"):
    sys.modules[name] = None
from hf_seqrec import load_sequences
assert len(load_sequences({str(folder)!r})) == 4
"""
    subprocess.run([sys.executable, "-c", code], check=True)
