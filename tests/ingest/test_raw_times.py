import datetime
import logging

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_seqrec import build_dataset, load_sequences
from hf_seqrec.ingest.raw_times import whole_seconds

DAY = datetime.datetime(2024, 1, 1)
NOON = 1704110400


@pytest.fixture
def write_times(tmp_path):
    """Write a Parquet log of one user whose items are called 0, 1, 2 ... in the order of the times given."""

    def write(times, kind=None):
        names = [str(number) for number in range(len(times))]
        table = pa.table({"user": ["u"] * len(times), "item": names, "ts": pa.array(times, kind)})
        pq.write_table(table, tmp_path / "log.parquet")
        return tmp_path / "log.parquet"

    return write


@pytest.mark.parametrize(
    ("kind", "unit"), [("timestamp[ms]", 10**3), ("timestamp[us]", 10**6), ("timestamp[ns]", 10**9), ("float64", 1)]
)
def test_fractions_of_a_second_order_events(write_times, tmp_path, kind, unit):
    # 3.4 s, 3.0 s, 2.6 s: rounded to seconds, all three are 3.
    times = [3.4, 3.0, 2.6] if unit == 1 else [tenths * unit // 10 for tenths in (34, 30, 26)]
    log = write_times(times, pa.float64() if unit == 1 else pa.timestamp(kind[10:12]))
    sequences = load_sequences(build_dataset(log, tmp_path / "out"), timestamps=True)
    assert sequences.catalog.decode(sequences.history(0)) == ["2", "1", "0"]
    assert sequences.timestamps.tolist() == [2, 3, 3]


@pytest.mark.parametrize(
    ("times", "kind", "expected", "unit"),
    [
        ([1500, -1500], pa.timestamp("ms"), [1500000, -1500000], "us"),
        ([1500001, -1], pa.timestamp("us", "Asia/Tokyo"), [1500001, -1], "us"),
        ([1_700_000_000_999_999_999, -1], pa.timestamp("ns"), [1_700_000_000_999_999_999, -1], "ns"),
        ([2000, 1000], pa.timestamp("ms"), [2, 1], "s"),
        ([1, -1], pa.date32(), [86400, -86400], "s"),
        ([1.5, -0.25], pa.float32(), [1500000, -250000], "us"),
        ([978300760123.5, 978300760124.0], pa.float64(), [978300760123500, 978300760124000], "us"),
        ([978300760.0, 5.0], pa.float64(), [978300760, 5], "s"),
    ],
)
def test_types_of_parquet(read_log, write_times, times, kind, expected, unit):
    log = read_log(write_times(times, kind))
    assert log.time_unit == unit
    assert log.events.order_by("file_order").to_pyarrow()["time"].to_pylist() == expected


def test_a_decimal(read_log, write_times):
    log = read_log(write_times([978300760, 5], pa.decimal128(20, 0)))
    assert log.events.order_by("file_order").to_pyarrow()["time"].to_pylist() == [978300760, 5]


def test_a_date_has_no_unit_to_be_told(read_log, write_times):
    log = read_log(write_times([1000, 2000], pa.timestamp("ms")), timestamp_unit="ms")
    assert (log.time_unit, log.events.order_by("file_order").to_pyarrow()["time"].to_pylist()) == ("s", [1, 2])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-01-01", NOON - 43200),
        ("2024-01-01 12:00", NOON),
        ("2024-01-01 12:00:00", NOON),
        ("2024-01-01T12:00:00", NOON),
        (" 2024-01-01T12:00:00Z ", NOON),
        ("2024-01-01 12:00:00 UTC", NOON),
        ("2024-01-01T12:00:00+00:00", NOON),
        ("2024-01-01T12:00:00+02:00", NOON - 7200),
        ("2024-01-01T12:00:00-0330", NOON + 12600),
        ("2024-01-01 12:00:00+02", NOON - 7200),
        ("1969-12-31T23:59:59Z", -1),
        ("9.78300761E8", 978300761),
        ("+5", 5),
        ("5.", 5),
        (".0", 0),
        ("-3.00", -3),
    ],
)
@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_text(read_log, write_log, text, expected, ending):
    line = f"u,i,{text}\n" if ending == "csv" else f'{{"user": "u", "item": "i", "ts": "{text}"}}\n'
    path = write_log(f"log.{ending}", ("user,item,ts\n" if ending == "csv" else "") + line)
    log = read_log(path)
    assert (log.time_unit, log.events.to_pyarrow()["time"].to_pylist()) == ("s", [expected])


@pytest.mark.parametrize(
    ("texts", "expected", "unit"),
    [
        (["2024-01-01T12:00:00.5Z", "2024-01-01T12:00:00Z"], [NOON * 10**6 + 500000, NOON * 10**6], "us"),
        (["2024-01-01 12:00:00,123", "1969-12-31T23:59:59.9"], [NOON * 10**6 + 123000, -100000], "us"),
        (["2024-01-01T12:00:00.123456789+01:00", "2024-01-01"], None, "ns"),
        (["978300760.25", "5"], [978300760250000, 5000000], "us"),
        (["978300760123000000.0", "978300760123000001"], [978300760123000000, 978300760123000001], "ns"),
    ],
)
def test_fractions_in_text(read_log, write_log, texts, expected, unit):
    path = write_log("log.csv", "user;item;ts\n" + "".join(f"u;i;{text}\n" for text in texts))
    log = read_log(path)
    expected = expected or [(NOON - 3600) * 10**9 + 123456789, (NOON - 43200) * 10**9]
    assert (log.time_unit, log.events.order_by("file_order").to_pyarrow()["time"].to_pylist()) == (unit, expected)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (
            ["5", "6", "2024-01-01"],
            r"log\.csv, line 4: `ts` must be of one kind in all rows, found a date after numbers",
        ),
        (["2024-01-01", "6"], r"log\.csv, line 3: `ts` must be of one kind in all rows, found a number after dates"),
    ],
)
def test_two_kinds_in_one_column(read_log, write_log, texts, message):
    path = write_log("log.csv", "user,item,ts\n" + "".join(f"u,i,{text}\n" for text in texts))
    for on_bad_rows in ("error", "skip"):
        with pytest.raises(ValueError, match=message):
            read_log(path, on_bad_rows=on_bad_rows)


def test_a_missing_zone_is_said_once(read_log, write_log, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("hf_seqrec"), "propagate", True)
    lines = "".join(f"u,i,2024-01-0{day}{zone}\n" for day, zone in [(1, ""), (2, "T00:00Z"), (3, " 10:00")])
    read_log(write_log("log.csv", "user,item,ts\n" + lines))
    said = [record.message for record in caplog.records if record.name.endswith("raw_times")]
    assert said == ["log.csv: `ts` has 2 times without a time zone. They are taken for UTC."]


@pytest.mark.parametrize(
    ("kind", "value"), [(pa.time64("us"), 5), (pa.bool_(), True), (pa.list_(pa.int64()), [5]), (pa.binary(), b"5")]
)
def test_types_that_are_no_times(read_log, write_times, kind, value):
    with pytest.raises(ValueError, match=r"log\.parquet: `ts` must hold .*`timestamp_column`"):
        read_log(write_times([value], kind))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
@given(st.lists(st.integers(-(2**62), 2**62), min_size=1), st.sampled_from([1, 10**3, 10**6, 10**9]))
def test_whole_seconds_are_exact(engine, times, units):
    table = ibis.memtable(pa.table({"time": pa.array(times, pa.int64())}))
    found = engine.con.to_pyarrow(whole_seconds(table.time, units)).to_pylist()
    assert found == [time // units for time in times]
