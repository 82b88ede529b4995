import json

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_seqrec import build_dataset, load_sequences
from hf_seqrec.ingest.raw_ids import id_text, id_texts
from hf_seqrec.ingest.read_log import InteractionsArguments


def texts_of(engine, values, kind=None):
    table = ibis.memtable(pa.table({"id": pa.array(values, kind)}))
    return engine.con.to_pyarrow(id_texts(table.id)).to_pylist()


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([10, -3], pa.int32(), ["10", "-3"]),
        ([2**64 - 1], pa.uint64(), [str(2**64 - 1)]),
        ([10.0, 1e16, -0.0, 10.5, None], pa.float64(), ["10", "10000000000000000", "0", "10.5", None]),
        ([float("nan"), float("inf"), 1e300], pa.float64(), [None, None, None]),
        (["10.0", "10", "-7.0", "0.0"], None, ["10", "10", "-7", "0"]),
        (["007.0", "1.10", "v1.0", "10.00", ".0", "1e3", " 7", ""], None, None),
        ([True, False], None, ["true", "false"]),
    ],
)
def test_one_rule(engine, values, kind, expected):
    assert texts_of(engine, values, kind) == (values if expected is None else expected)


def test_decimals(engine):
    import decimal

    values = [decimal.Decimal(text) for text in ("10.000", "100.000", "10.500")]
    assert texts_of(engine, values, pa.decimal128(20, 3)) == ["10", "100", "10.500"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.lists(st.integers(-(2**53), 2**53), min_size=1))
def test_a_whole_number_is_one_id_however_it_is_written(engine, numbers):
    expected = [str(number) for number in numbers]
    assert texts_of(engine, numbers, pa.int64()) == expected
    assert texts_of(engine, [float(number) for number in numbers], pa.float64()) == expected
    assert texts_of(engine, [f"{number}.0" for number in numbers]) == expected
    assert [id_text(f"{number}.0") for number in numbers] == expected


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1))
def test_sql_and_python_agree(engine, values):
    assert texts_of(engine, values) == [id_text(value) for value in values]


def logs_of_floats(folder):
    """Files of one event with user 1 and item 10, as floats."""
    table = pa.table({"user_id": [1.0], "item_id": [10.0], "timestamp": [1]})
    pq.write_table(table, folder / "log.parquet")
    (folder / "log.csv").write_text("user_id,item_id,timestamp\n1.0,10.0,1\n")
    (folder / "log.inter").write_text("user_id:float\titem_id:float\ttimestamp:float\n1.0\t10.0\t1.0\n")
    (folder / "log.jsonl").write_text(json.dumps({"user_id": 1.0, "item_id": 10.0, "timestamp": 1}))
    (folder / "log.json").write_text(json.dumps([{"user_id": "1.0", "item_id": 10.0, "timestamp": 1}]))


@pytest.mark.parametrize("log", ["log.parquet", "log.csv", "log.inter", "log.jsonl", "log.json"])
@pytest.mark.parametrize("items", ["items.csv", "items.parquet", "items.jsonl"])
def test_titles_are_found_whatever_the_type(tmp_path, monkeypatch, log, items):
    monkeypatch.setattr("hf_seqrec.ingest.dataset_folder.draw_statistics", lambda *arguments: False)
    logs_of_floats(tmp_path)
    (tmp_path / "items.csv").write_text("item_id,title\n10,Ten\n")
    pq.write_table(pa.table({"item_id": [float("nan"), 10.0], "title": ["None", "Ten"]}), tmp_path / "items.parquet")
    (tmp_path / "items.jsonl").write_text('{"item_id": 10.0, "title": "Ten"}\n{"title": "None"}\n')
    arguments = InteractionsArguments(items=str(tmp_path / items))
    sequences = load_sequences(build_dataset(tmp_path / log, tmp_path / "out", arguments))
    assert sequences.user_ids.to_pylist() == ["1"]
    assert (sequences.catalog.item_ids.to_pylist(), sequences.catalog.titles) == (["10"], ["Ten"])


def test_a_missing_id_is_a_malformed_row(read_log, read_events, tmp_path):
    nan = float("nan")
    table = pa.table({"user_id": [1.0, nan, nan], "item_id": [10.0, 20.0, nan], "timestamp": [1, 2, 3]})
    pq.write_table(table, tmp_path / "log.parquet")
    with pytest.raises(ValueError, match=r"log\.parquet, row 2: `user_id` must not be empty \(2 such rows\)"):
        read_events(tmp_path / "log.parquet")
    log = read_log(tmp_path / "log.parquet", on_bad_rows="skip")
    assert log.events.to_pyarrow()["item_id"].to_pylist() == ["10"]
    assert log.n_skipped == {"`user_id` missing or malformed": 2, "`item_id` missing or malformed": 1}


@pytest.mark.parametrize(
    ("value", "kind"),
    [({"id": 7}, None), (b"7", pa.binary()), ([[7]], None), ([("a", 1)], pa.map_(pa.string(), pa.int64()))],
)
def test_what_is_no_id(read_events, tmp_path, value, kind):
    table = pa.table({"user": ["u"], "item": pa.array([value], kind), "ts": [1]})
    pq.write_table(table, tmp_path / "log.parquet")
    with pytest.raises(ValueError, match=r"log\.parquet: `item` must hold .*`item_column`"):
        read_events(tmp_path / "log.parquet")


def test_an_object_far_down_in_a_json_file(read_events, write_log):
    lines = ['{"user": "u", "item": "[REC]", "ts": 1}'] * 1500
    assert len(read_events(write_log("log.jsonl", "\n".join(lines)))) == 1500
    for nested in ('{"id": 7}', "[7]", "[]", "{}"):
        path = write_log("log.jsonl", "\n".join([*lines, f'{{"user": "u", "item": {nested}, "ts": 1}}']))
        with pytest.raises(ValueError, match=r"log\.jsonl, line 1501: `item` must not be empty, a list or an object"):
            read_events(path)
    path = write_log("log.jsonl", "\n".join([*lines[:5], '{"user": {"id": 7}, "item": "a", "ts": 1}']))
    with pytest.raises(ValueError, match=r"log\.jsonl, line 6: `user` must hold one value in each row, found objects"):
        read_events(path)
