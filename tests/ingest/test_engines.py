import bz2
import json
import subprocess
import sys

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from hf_seqrec.ingest.engines import open_engine
from hf_seqrec.ingest.log_files import RawFile


@pytest.mark.parametrize("package", ["ibis", "duckdb"])
def test_without_the_extra(package, tmp_path):
    code = f"""
import sys
sys.modules[{package!r}] = None
from hf_seqrec.ingest.engines import open_engine
try:
    open_engine("duckdb", {str(tmp_path)!r})
except ImportError as error:
    assert 'pip install "hf-seqrec[data]"' in str(error), error
else:
    raise AssertionError("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_spark(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspark", None)
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    with pytest.raises(ImportError, match=r"hf-seqrec\[data,spark\]"):
        open_engine("pyspark", tmp_path)


def test_no_such_engine(tmp_path):
    with pytest.raises(ValueError, match="one of duckdb, pyspark, got 'polars'"):
        open_engine("polars", tmp_path)


def test_a_memory_limit_that_is_none(tmp_path):
    with pytest.raises(ValueError, match=r"`memory_limit` must be a size such as .6GB., got 'much'"):
        open_engine("duckdb", tmp_path, "much")


@pytest.mark.parametrize("name", ["log[1].csv", "what?.csv", "all*.csv", "br{a}ce,.csv", r"back\[1].csv", "_log.csv"])
@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_a_file_that_exists_is_that_file(read_events, tmp_path, name, form):
    table = pa.table({"user_id": ["u", "u"], "item_id": ["a", "b"], "timestamp": [1, 2]})
    others = table.slice(0, 1)
    for path, content in ((tmp_path / "log1.csv", others), (tmp_path / "whatx.csv", others), (tmp_path / name, table)):
        write(path.with_suffix(f".{form}"), content)
    assert read_events((tmp_path / name).with_suffix(f".{form}")) == [("u", "a", 1), ("u", "b", 2)]


def write(path, table):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    elif path.suffix == ".csv":
        pa_csv.write_csv(table, path)
    else:
        path.write_text("\n".join(json.dumps(row) for row in table.to_pylist()))


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_folders_with_values_in_their_names(read_events, tmp_path, form):
    folders = ["timestamp=2024-01-01/kind=a%20b", "timestamp=2024-01-02/kind=c"]
    paths = [tmp_path / folder / f"part.{form}" for folder in folders]
    for path, times in zip(paths, ([3, 1], [2, 5]), strict=True):
        write(path, pa.table({"user_id": ["u", "u"], "item_id": ["a", "b"], "timestamp": times}))
    # The files' own times win over the folders', which name one that the files do not have.
    expected = [("u", "a", 3), ("u", "b", 1), ("u", "a", 2), ("u", "b", 5)]
    assert read_events(paths) == expected
    assert RawFile.open(paths).columns == ["user_id", "item_id", "timestamp", "kind"]
    events = read_events(paths, item_column="kind")
    assert [item for _, item, _ in events] == ["a b", "a b", "c", "c"]
    assert [time for _, _, time in events] == [3, 1, 2, 5]


def test_lines_that_end_in_several_ways(read_events, write_log):
    head = "user_id,item_id,timestamp\n"
    expected = [("u", "a", 1), ("u", "b", 2), ("u", "c", 3)]
    for text in ("u,a,1\nu,b,2\r\nu,c,3\n", "u,a,1\r\nu,b,2\nu,c,3", "u,a,1\ru,b,2\r\nu,c,3\r"):
        assert read_events(write_log("log.csv", head + text)) == expected
    # A field with a line break in it is as it was written.
    assert read_events(write_log("log.csv", head + '"u\r\nv",a,1\n')) == [("u\r\nv", "a", 1)]
    many = "".join(f"u,i,{n}\n" for n in range(200_000)) + "".join(f"u,i,{n}\r\n" for n in range(200_000))
    assert [time for _, _, time in read_events(write_log("log.csv", head + many))] == [*range(200_000)] * 2
    path = write_log("log.csv", head + "u,a,1\r\nu,b\nu,c,3\n")
    with pytest.raises(ValueError, match=r"log\.csv, line 3: it must have 3 fields, found fewer"):
        read_events(path)


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b"u,a", "it must have 3 fields, found fewer"),
        (b"u,a,1,2", "it must have 3 fields, found more"),
        (b'u,"a"x,1', "a quote must be closed"),
        (b"u,\xff,1", "it must be UTF-8 text"),
        (b"u," + b"a" * 3_000_000 + b",1", "it must be shorter than 2,000,000 bytes"),
    ],
)
def test_lines_that_are_no_records(read_events, write_log, line, what):
    path = write_log("log.csv", b"user,item,ts\nu,a,1\n" + line + b"\nu,b,2\n")
    with pytest.raises(ValueError, match=r"log\.csv, line 3: " + what):
        read_events(path)
    assert read_events(path, on_bad_rows="skip") == [("u", "a", 1), ("u", "b", 2)]


def test_bad_lines_of_several_folders_and_packings(read_log, tmp_path):
    paths = [tmp_path / f"day={day}" / "log.csv.bz2" for day in (1, 2)]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(bz2.compress(b"user,item,ts\nu,a,1\nu\n"))
    with pytest.raises(ValueError, match=r"day=1.log\.csv\.bz2, line 3: it must have 3 fields.*\(2 such rows\)"):
        read_log(paths, where=["day=1"])
    log = read_log(paths, where=["day=1"], on_bad_rows="skip")
    assert log.n_skipped == {"wrong number of fields or invalid text": 2}


def test_a_damaged_parquet_file(read_events, tmp_path):
    path = tmp_path / "log.parquet"
    table = pa.table({"user": [str(n) for n in range(9999)], "item": ["i"] * 9999, "ts": range(9999)})
    pq.write_table(table, path, compression="zstd")
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\xff" * 2000 + content[2100:])
    with pytest.raises(ValueError, match=r"log\.parquet is not a whole Parquet file") as raised:
        read_events(path)
    assert "duckdb" not in str(raised.value).lower()
