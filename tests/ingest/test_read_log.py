import csv
import datetime
import gzip
import io
import re

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_seqrec.ingest.engines import open_engine
from hf_seqrec.ingest.log_files import RawFile
from hf_seqrec.ingest.read_log import InteractionsArguments, read_interactions, read_items, select_rows


@pytest.fixture
def engine(tmp_path):
    (tmp_path / "work").mkdir()
    engine = open_engine("duckdb", tmp_path / "work")
    yield engine
    engine.close()


def read_log(engine, *paths, **arguments):
    return read_interactions(engine, RawFile.open(paths), InteractionsArguments(**arguments))


def read(engine, *paths, **arguments):
    """Records of a log as raw ids and time, in the order of the log."""
    table = read_log(engine, *paths, **arguments).events.order_by("file_order").to_pyarrow()
    return [(str(row["user_id"]), str(row["item_id"]), row["time"]) for row in table.to_pylist()]


EVENTS = [("007", "a b", 978300760), (" 7", 'say "x"', 5), ("Ünï", "1,5", -3)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "log.inter",
            'user_id:token\titem_id:token\ttimestamp:float\n007\ta b\t978300760.0\n 7\tsay "x"\t5\nÜnï\t1,5\t-3\n',
        ),
        ("log.tsv", 'user_id\titem_id\ttimestamp\n007\ta b\t978300760.\n 7\t"say ""x"""\t5\nÜnï\t1,5\t-3\n'),
        ("log.csv", 'item_id,ts,user\n"a b",978300760,007\n"say ""x""", 5 , 7\n\n"1,5",-3.00,Ünï\n'),
        ("log.csv", '\ufeffUserId,ItemId,Timestamp\r\n007,a b,978300760\r\n 7,"say ""x""",5\r\nÜnï,"1,5",-3\r\n'),
        (
            "log.jsonl",
            '{"user": "007", "item": "a b", "time": 978300760.0, "x": [1]}\n'
            '{"item": "say \\"x\\"", "user": " 7", "time": "5"}\n\n'
            '{"user": "\\u00dcn\\u00ef", "item": "1,5", "time": -3}\n',
        ),
    ],
)
def test_text_files(engine, write_log, name, text):
    assert read(engine, write_log(name, text)) == EVENTS


@pytest.mark.parametrize(
    ("kind", "times"),
    [
        (pa.int32(), [3, 2, 1]),
        (pa.float64(), [3.0, 2.0, 1.0]),
        (pa.string(), ["3", "2.0", "1."]),
        (pa.timestamp("ms"), [datetime.datetime(1970, 1, 1, 0, 0, second) for second in (3, 2, 1)]),
        (pa.timestamp("us", tz="UTC"), [datetime.datetime(1970, 1, 1, 0, 0, second) for second in (3, 2, 1)]),
    ],
)
def test_parquet(engine, tmp_path, kind, times):
    table = pa.table({"user": [2**62, -1, 7], "asin": ["a", "b", "c"], "time": pa.array(times, kind)})
    pq.write_table(table, tmp_path / "log.parquet")
    assert read(engine, tmp_path / "log.parquet") == [(str(2**62), "a", 3), ("-1", "b", 2), ("7", "c", 1)]


def test_file_order_holds_over_many_row_groups(engine, tmp_path):
    n = 50_000
    ids = [str(number) for number in range(n)]
    table = pa.table({"user_id": ids, "item_id": ids, "timestamp": [0] * n})
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=500)
    events = read_log(engine, tmp_path / "log.parquet").events.order_by("file_order").to_pyarrow()
    assert events["file_order"].to_pylist() == list(range(n))
    assert events["user_id"].to_pylist() == ids


def test_asked_for_columns(engine, write_log):
    path = write_log("log.csv", "user,film,item,when,ts\na,b,c,1,2\n")
    assert read(engine, path) == [("a", "c", 2)]
    assert read(engine, path, item_column="film", timestamp_column="when", user_column="item") == [("c", "b", 1)]
    with pytest.raises(
        ValueError, match=r"`item_column` must be a column.*'movie'; it has user, film, item, when, ts"
    ):
        read(engine, path, item_column="movie")


def test_a_missing_column_lists_those_found(engine, write_log):
    path = write_log("log.csv", "user,thing,timestamp\na,b,1\n")
    with pytest.raises(ValueError, match=r"such as item_id, item.*it has user, thing, timestamp.*`item_column`"):
        read(engine, path)


NO_TIMES = [
    "x",
    "",
    "9" * 30,
    "0x10",
    "nan",
    "1_000",
    "1e300",
    "2001-13-01",
    "2001-01-01T25:00",
    "01/02/2003",
    "12:00",
]


@pytest.mark.parametrize("value", NO_TIMES)
def test_a_timestamp_that_is_no_time(engine, write_log, value):
    path = write_log("log.csv", f'user,item,ts\na,"b\nc",1\n\na,b,{value}\na,b,{value}\na,b,3\n')
    shown = repr(value) if value else "None"
    with pytest.raises(ValueError, match="must be a time") as error:
        read(engine, path)
    expected = (
        "log.csv, line 5: `ts` must be a time (Unix seconds, or a date such as 2024-01-31 or 2024-01-31T12:00:00Z)"
    )
    assert f"{expected}, got {shown} (2 such rows)." in str(error.value)


def test_a_wrong_timestamp_in_other_formats(engine, write_log, tmp_path):
    path = write_log("log.inter", "user_id:token\titem_id:token\ttimestamp:float\na\tb\t1\na\tb\tsoon\n")
    with pytest.raises(ValueError, match=r"log\.inter, line 3: `timestamp`.*got 'soon'\."):
        read(engine, path)
    path = write_log("log.jsonl", '\n{"user": "a", "item": "b", "ts": 1}\n\n{"user": "a", "item": "b"}\n')
    with pytest.raises(ValueError, match=r"log\.jsonl, line 4: `ts`.*got None\."):
        read(engine, path)
    for value in (float("nan"), 1e30, float("inf"), None):
        log = tmp_path / f"{value}.parquet"
        pq.write_table(pa.table({"user": ["a", "b"], "item": ["a", "b"], "ts": [1.0, value]}), log)
        with pytest.raises(ValueError, match=re.escape(f"{log}, row 2: `ts` must be a time")):
            read(engine, log)


@pytest.mark.parametrize(("line", "column"), [(",b,1", "user"), ("a,,1", "item"), ('a,"",1', "item")])
def test_empty_ids(engine, write_log, line, column):
    path = write_log("log.csv", f"user,item,ts\na,b,1\n{line}\n")
    with pytest.raises(ValueError, match=rf"line 3: `{column}` must not be empty\."):
        read(engine, path)


def test_a_header_and_nothing_else(engine, write_log):
    with pytest.raises(ValueError, match="no interactions"):
        read(engine, write_log("log.csv", "user,item,ts\n"))


@pytest.mark.parametrize("line", ["a,b", "a,b,1,2", 'a,"b,1'])
def test_a_line_that_is_no_record(engine, write_log, line):
    path = write_log("log.csv", f"user,item,ts\na,b,1\n{line}\n")
    with pytest.raises(ValueError, match=r"log\.csv, line 3: .*on_bad_rows=skip"):
        read(engine, path)


def test_invalid_utf8_in_the_middle(engine, write_log):
    path = write_log("log.csv", b"user,item,ts\n" + b"a,b,1\n" * 20_000 + b"\xff,b,1\n" + b"\xff,b,1\na,b,2\n")
    with pytest.raises(ValueError, match=r"log\.csv, line 20002: .*\(2 such rows\)"):
        read(engine, path)
    assert len(read(engine, path, on_bad_rows="skip")) == 20_001


def test_bad_rows_are_skipped_and_counted(engine, write_log):
    lines = ["a,b,1", "a,b", "a,b,x", ",b,2", ",,2", "a,c,3", "a,b,4,5"]
    path = write_log("log.csv", "\n".join(["user,item,ts", *lines]))
    log = read_log(engine, path, on_bad_rows="skip")
    assert [row["time"] for row in log.events.order_by("file_order").to_pyarrow().to_pylist()] == [1, 3]
    assert log.n_skipped == {
        "wrong number of fields or invalid text": 2,
        "`user` missing or malformed": 2,
        "`item` missing or malformed": 1,
        "`ts` missing or malformed": 1,
    }
    path = write_log("log.jsonl", '{"user": 1, "item": 2, "ts": 3}\n{"user": \n[1]\n{"user": 1, "item": 2}\n')
    with pytest.raises(ValueError, match="line 2"):
        read(engine, path)


def test_a_json_line_that_is_none(engine, write_log):
    good = '{"user": 1, "item": 2, "ts": 3}\n'
    path = write_log("log.jsonl", good * 2000 + '{"user": \n' + good)
    with pytest.raises(
        ValueError, match=r"line 2001: `user` must not be empty, a list .*the line is no JSON object\)"
    ):
        read(engine, path)
    assert len(read(engine, path, on_bad_rows="skip")) == 2001


def test_nothing_but_bad_rows(engine, write_log):
    with pytest.raises(ValueError, match="no row that is well-formed"):
        read(engine, write_log("log.csv", "user,item,ts\na,b\n,b,1\n"), on_bad_rows="skip")


@pytest.mark.parametrize(
    ("times", "unit"),
    [
        ([0, 978300760], "s"),
        ([978300760123, 978300761000], "ms"),
        ([978300760123000, 978300761000000], "us"),
        ([978300760123000000, 978300761000000000], "ns"),
    ],
)
def test_units_of_time_are_told_apart(engine, tmp_path, times, unit):
    pq.write_table(pa.table({"user": ["a", "b"], "item": ["c", "d"], "ts": times}), tmp_path / "log.parquet")
    assert read_log(engine, tmp_path / "log.parquet").time_unit == unit
    assert read_log(engine, tmp_path / "log.parquet", timestamp_unit="s").time_unit == "s"


def test_mixed_units_of_time(engine, write_log):
    path = write_log("log.csv", "user,item,ts\na,b,978300760\na,b,978300760000\na,b,978300761000\n")
    with pytest.raises(ValueError, match=r"2 of 3 timestamps look like milliseconds.*such as 978300760\).*`timestamp"):
        read(engine, path)


def test_conditions_and_ratings(engine, tmp_path, write_log):
    path = write_log("log.csv", "user,item,ts,is_click,rating\na,b,1,0,5\na,c,2,1,3.5\na,d,3,1,4\n")
    arguments = InteractionsArguments(where=["is_click=1"], rating_threshold=4)
    kept = select_rows(read_interactions(engine, RawFile.open(path), arguments).events, arguments)
    assert kept.item_id.to_pyarrow().to_pylist() == ["d"]
    # The number 1 of a Parquet file is meant as well.
    pq.write_table(
        pa.table({"user": ["a", "b"], "item": ["c", "d"], "ts": [1, 2], "is_click": [0, 1]}), tmp_path / "p.parquet"
    )
    arguments = InteractionsArguments(where=["is_click=1"])
    kept = select_rows(read_interactions(engine, RawFile.open(tmp_path / "p.parquet"), arguments).events, arguments)
    assert kept.item_id.to_pyarrow().to_pylist() == ["d"]
    with pytest.raises(ValueError, match=r"`where` must be a column of .* got 'like'"):
        read(engine, path, where=["like=1"])
    path = write_log("log.csv", "user,item,ts,rating\na,b,1,5\na,c,2,good\n")
    with pytest.raises(ValueError, match="line 3: `rating` must be a number, got 'good'"):
        read(engine, path, rating_threshold=4)


def test_compressed_text_and_a_file_that_was_cut(engine, write_log):
    packed = gzip.compress(b"user,item,ts\n" + b"".join(b"u%d,i,%d\n" % (n, n) for n in range(20_000)))
    assert len(read(engine, write_log("log.csv.gz", packed))) == 20_000
    with pytest.raises(ValueError, match=r"cut\.csv\.gz is not a whole \.gz file"):
        read(engine, write_log("cut.csv.gz", packed[: len(packed) // 2]))


def test_several_files_are_read_in_their_order(engine, write_log, tmp_path):
    csv_files = [write_log(f"{name}.csv", f"user,item,ts\n{name},x,1\n{name},y,1\n") for name in "ba"]
    expected = [("b", "x", 1), ("b", "y", 1), ("a", "x", 1), ("a", "y", 1)]
    assert read(engine, *csv_files) == expected
    for path in csv_files:
        pq.write_table(pa_csv.read_csv(path), path.with_suffix(".parquet"))
    assert read(engine, *(path.with_suffix(".parquet") for path in csv_files)) == expected


cell = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(st.lists(st.tuples(cell, cell, st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=8))
def test_any_raw_id_is_read_as_written(engine, tmp_path_factory, events):
    # A connection remembers a file's metadata, so every example gets files of its own.
    folder = tmp_path_factory.mktemp("log")
    table = pa.table(dict(zip(("user_id", "item_id", "timestamp"), zip(*events, strict=True), strict=True)))
    pq.write_table(table, folder / "log.parquet")
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerow(table.column_names)
    writer.writerows(events)
    (folder / "log.csv").write_bytes(text.getvalue().encode())
    for name in ("log.parquet", "log.csv"):
        # Such timestamps are of no unit that could be told by looking.
        assert read(engine, folder / name, timestamp_unit="s") == events


def test_items(engine, write_log):
    path = write_log(
        "films.item",
        'item_id:token\tmovie_title:token_seq\ttitle:token\tcount:float\n1\t"Heat"\tt\t5\n2\tAlien\tt\t6\n1\tX\tt\t7\n',
    )
    # `title` is preferred over `movie_title`, and the catalog has a `count` of its own.
    raw = RawFile.open(path)
    items = read_items(engine, raw, InteractionsArguments()).order_by("item_id").to_pyarrow().to_pylist()
    assert items[0] == {"item_id": "1", "movie_title": '"Heat"', "title": "t", "item_count": "5"}
    asked = InteractionsArguments(title_column="movie_title")
    items = read_items(engine, raw, asked).order_by("item_id").to_pyarrow().to_pylist()
    assert items == [
        {"item_id": "1", "title": '"Heat"', "item_title": "t", "item_count": "5"},
        {"item_id": "2", "title": "Alien", "item_title": "t", "item_count": "6"},
    ]
    with pytest.raises(ValueError, match="`title_column` must be a column"):
        read_items(engine, raw, InteractionsArguments(title_column="name"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"repeats": "drop"}, "one of keep, first, last, consecutive, got 'drop'"),
        ({"min_user_events": 0}, "`min_user_events` must be at least 1"),
        ({"min_item_events": -1}, "`min_item_events` must be at least 1"),
        ({"max_items": 0}, "`max_items` must be at least 1, got 0. Leave it out"),
        ({"on_bad_rows": "drop"}, "one of error, skip, got 'drop'"),
        ({"timestamp_unit": "h"}, "one of s, ms, us, ns, got 'h'"),
        ({"where": ["click"]}, "conditions such as `is_click=1`, got 'click'"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        InteractionsArguments(**arguments)
