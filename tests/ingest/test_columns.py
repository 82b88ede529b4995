import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_seqrec.ingest.columns import choose_column
from hf_seqrec.ingest.log_files import RawFile
from hf_seqrec.ingest.read_log import InteractionsArguments, read_items


@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_the_same_case_wins(read_events, tmp_path, form):
    table = {"user_id": ["u"], "Item_Id": ["WRONG"], "item_id": ["a"], "Timestamp": [9], "timestamp": [1]}
    if form == "parquet":
        pq.write_table(pa.table(table), tmp_path / "log.parquet")
    else:
        (tmp_path / "log.csv").write_text("user_id,Item_Id,item_id,Timestamp,timestamp\nu,WRONG,a,9,1\n")
    assert read_events(tmp_path / f"log.{form}") == [("u", "a", 1)]
    chosen = {"item_column": "Item_Id", "timestamp_column": "Timestamp"}
    assert read_events(tmp_path / f"log.{form}", **chosen) == [("u", "WRONG", 9)]


def test_names_that_differ_in_case_only(write_log):
    raw = RawFile.open(write_log("log.csv", "USER_ID,user_id,TimeStamp,TIMESTAMP\n"))
    assert choose_column(raw, "user_column", None, ("user_id",)) == "user_id"
    for wanted in (None, "timestamp"):
        with pytest.raises(ValueError, match="has the columns `TimeStamp`, `TIMESTAMP`, which differ in case only"):
            choose_column(raw, "timestamp_column", wanted, ("timestamp",))
    assert choose_column(raw, "timestamp_column", "TIMESTAMP", ("timestamp",)) == "TIMESTAMP"


def test_names_in_a_catalog(engine, write_log):
    text = ",item_id,title,Count,item,row,Year,year,item_count\n0,10,Ten,5,x,1,1999,2000,7\n"
    items = read_items(engine, RawFile.open(write_log("items.csv", text)), InteractionsArguments())
    assert items.to_pyarrow().to_pylist() == [
        {
            "item_id": "10",
            "title": "Ten",
            "item_Count": "5",
            "item_item": "x",
            "item_row": "1",
            "Year": "1999",
            "item_year": "2000",
            "item_item_count": "7",
        }
    ]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (pa.array([1], pa.int32()), pa.array([20], pa.int64()), ["1", "20"]),
        (pa.array([1]), pa.array([20.0]), ["1", "20"]),
        (pa.array([2**60 + 1]), pa.array([20.0]), [str(2**60 + 1), "20"]),
        (pa.array(["a"]), pa.array([20.0]), ["a", "20"]),
        (pa.array([1.0], pa.float32()), pa.array([20.0]), ["1", "20"]),
        (pa.array([2**64 - 1], pa.uint64()), pa.array([20]), [str(2**64 - 1), "20"]),
        (pa.array(["a"]), pa.nulls(1), None),
    ],
)
def test_files_that_differ_in_type(read_events, tmp_path, first, second, expected):
    paths = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for path, items, time in zip(paths, (first, second), (pa.array([1]), pa.array([2.0])), strict=True):
        pq.write_table(pa.table({"user_id": ["u"], "item_id": items, "timestamp": time}), path)
    if expected is None:
        with pytest.raises(ValueError, match=r"b\.parquet, row 1: `item_id` must not be empty"):
            read_events(paths)
    else:
        assert read_events(paths) == [("u", expected[0], 1), ("u", expected[1], 2)]


def test_files_whose_times_differ_in_type(read_log, tmp_path):
    day = datetime.datetime(1970, 1, 2)
    paths = [tmp_path / f"{name}.parquet" for name in "abc"]
    kinds = (pa.timestamp("ms"), pa.timestamp("ns"), pa.date32())
    for path, kind in zip(paths, kinds, strict=True):
        pq.write_table(pa.table({"user": ["u"], "item": ["i"], "ts": pa.array([day], kind)}), path)
    assert read_log(paths).events.to_pyarrow()["time"].to_pylist() == [86400] * 3
    pq.write_table(pa.table({"user": ["u"], "item": ["i"], "ts": [5]}), paths[1])
    with pytest.raises(ValueError, match=r"`ts` is timestamp.* in .*a\.parquet and int64 in .*b\.parquet"):
        read_log(paths[:2])
