"""DuckDB and Spark give the same folder. Needs PySpark and Java; `make test-all` installs the former."""

import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from hf_seqrec.ingest.build import BuildArguments, build_dataset
from hf_seqrec.ingest.log_files import RawFile
from hf_seqrec.ingest.read_log import InteractionsArguments

pytest.importorskip("pyspark")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("java") is None, reason="Spark needs Java 17 or newer"),
]


@pytest.fixture(scope="module", autouse=True)
def session(tmp_path_factory):
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "4")
        .config("spark.sql.warehouse.dir", str(tmp_path_factory.mktemp("tables")))
        # Many partitions of a small file: their order must be that of the file.
        .config("spark.sql.files.maxPartitionBytes", "20000")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )
    yield session
    # Whatever was built: nothing of it stays in somebody's session.
    assert session.catalog.listTables() == []
    session.stop()


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A log with ties, repeats and odd ids."""
    rng = np.random.default_rng(0)
    n = 5000
    users = np.array([f"user {number:03d}" for number in range(200)] + ["Ünï", "7", '"q"', " x"])
    items = np.array([f"item,{number}" for number in range(100)] + ["é", "007", 'a "b"', "10"])
    table = pa.table(
        {
            "user_id": users[(len(users) * rng.random(n) ** 2).astype(int)],
            "item_id": items[(len(items) * rng.random(n) ** 2).astype(int)],
            "timestamp": rng.integers(978300000, 978300100, n),
            "rating": rng.integers(1, 6, n),
        }
    )
    folder = tmp_path_factory.mktemp("log")
    pq.write_table(table, folder / "log.parquet", row_group_size=500)
    pa_csv.write_csv(table, folder / "log.csv")
    with (folder / "log.jsonl").open("w") as file:
        file.writelines(json.dumps(row) + "\n" for row in table.to_pylist())
    for part in range(3):
        pq.write_table(table.slice(part * 2000, 2000), folder / f"part-{part}.parquet")
    items_table = pa.table({"item_id": items[:50], "title": [f"Title of {item}" for item in items[:50]]})
    pa_csv.write_csv(items_table, folder / "items.csv")
    return folder


def content(folder):
    """Everything in a dataset folder but the bytes that encode it."""
    tables = {
        str(path.relative_to(folder)): pq.read_table(path).to_pylist() for path in sorted(folder.rglob("*.parquet"))
    }
    statistics = (folder / "statistics.json").read_text()
    return tables | {"statistics": statistics, "card": (folder / "README.md").read_text()}


def assert_same(raw, tmp_path, arguments=None, items=None, num_shards=None):
    folders = {}
    for engine in ("duckdb", "pyspark"):
        build_arguments = BuildArguments(engine=engine, num_shards=num_shards)
        folders[engine] = build_dataset(raw, tmp_path / engine, arguments, build_arguments, items=items)
    found, expected = content(folders["pyspark"]), content(folders["duckdb"])
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name] == expected[name], name


@pytest.mark.parametrize("name", ["log.parquet", "log.csv", "log.jsonl"])
def test_as_it_is(log, tmp_path, name):
    assert_same(log / name, tmp_path, items=RawFile.open(log / "items.csv"), num_shards=3)


def test_several_files(log, tmp_path):
    assert_same([log / f"part-{part}.parquet" for part in (2, 0, 1)], tmp_path)


@pytest.mark.parametrize("repeats", ["first", "last", "consecutive"])
def test_every_filter(log, tmp_path, repeats):
    arguments = InteractionsArguments(
        repeats=repeats,
        where=["rating=3"] if repeats == "last" else [],
        rating_threshold=2,
        max_users=150,
        max_items=80,
        last_n=20,
        min_user_events=2,
        min_item_events=3,
    )
    assert_same(log / "log.csv", tmp_path, arguments)


def test_atomic_files_and_milliseconds(tmp_path):
    path = tmp_path / "log.inter"
    path.write_text("user_id:token\titem_id:token\ttimestamp:float\n" + 'a\t"x\t978300760123.0\na\ty"\t978300760122\n')
    assert_same(path, tmp_path)


def test_bad_rows(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text('user,item,ts\na,x,1\na,x\na,x,1,2\n,x,1\na,"multi\nline",2\na,x,soon\n')
    for engine in ("duckdb", "pyspark"):
        with pytest.raises(ValueError, match=r"log\.csv, line 3: .*\(2 such rows\)"):
            build_dataset(path, tmp_path / "out", build_arguments=BuildArguments(engine=engine))
    assert_same(path, tmp_path, InteractionsArguments(on_bad_rows="skip"))
