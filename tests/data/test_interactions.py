import csv
import datetime
import io
import re
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hf_seqrec.data import InteractionsArguments
from hf_seqrec.data.interactions import connect, drop_repeats, k_core, read_interactions, read_items


@pytest.fixture
def con():
    con = connect()
    yield con
    con.disconnect()


def rows(table, *columns):
    """Rows of a table in the order of the log."""
    found = table.order_by("file_order").select(*columns or ("user_id", "item_id", "timestamp")).to_pyarrow()
    return list(zip(*(column.to_pylist() for column in found.columns), strict=True))


def read(con, path, **arguments):
    return rows(read_interactions(con, path, InteractionsArguments(**arguments)))


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
def test_text_files(con, write_log, name, text):
    assert read(con, write_log(name, text)) == EVENTS


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
def test_parquet(con, tmp_path, kind, times):
    table = pa.table({"user": [2**62, -1, 7], "asin": ["a", "b", "c"], "time": pa.array(times, kind)})
    pq.write_table(table, tmp_path / "log.parquet")
    assert read(con, tmp_path / "log.parquet") == [(str(2**62), "a", 3), ("-1", "b", 2), ("7", "c", 1)]


def test_file_order_holds_over_many_row_groups(con, tmp_path):
    n = 50_000
    ids = [str(number) for number in range(n)]
    table = pa.table({"user_id": ids, "item_id": ids, "timestamp": [0] * n})
    pq.write_table(table, tmp_path / "log.parquet", row_group_size=500)
    events = read_interactions(con, tmp_path / "log.parquet", InteractionsArguments())
    assert rows(events, "user_id", "file_order") == [(str(number), number) for number in range(n)]


def test_asked_for_columns(con, write_log):
    path = write_log("log.csv", "user,film,item,when,ts\na,b,c,1,2\n")
    assert read(con, path) == [("a", "c", 2)]
    assert read(con, path, item_column="film", timestamp_column="when", user_column="item") == [("c", "b", 1)]
    with pytest.raises(
        ValueError, match=r"`item_column` must be a column.*'movie'; it has user, film, item, when, ts"
    ):
        read(con, path, item_column="movie")


def test_a_missing_column_lists_those_found(con, write_log):
    path = write_log("log.csv", "user,thing,timestamp\na,b,1\n")
    with pytest.raises(ValueError, match=r"such as item_id, item.*it has user, thing, timestamp.*`item_column`"):
        read(con, path)


@pytest.mark.parametrize("value", ["x", "1.5", "2001-01-01", "1e9", "", "9" * 30, "0x10", "nan", "1_000"])
def test_a_timestamp_that_is_no_integer(con, write_log, value):
    path = write_log("log.csv", f'user,item,timestamp\na,"b\nc",1\n\na,b,{value}\na,b,{value}\na,b,3\n')
    shown = repr(value) if value else "None"
    with pytest.raises(ValueError, match="must be an integer") as error:
        read(con, path)
    assert f"log.csv, line 5: `timestamp` must be an integer (Unix seconds), got {shown} (2 such rows)." in str(
        error.value
    )


def test_a_wrong_timestamp_in_other_formats(con, write_log, tmp_path):
    path = write_log("log.inter", "user_id:token\titem_id:token\ttimestamp:float\na\tb\t1\na\tb\t1.5\n")
    with pytest.raises(ValueError, match=r"log\.inter, line 3: `timestamp`.*got '1\.5'\."):
        read(con, path)
    path = write_log("log.jsonl", '\n{"user": "a", "item": "b", "ts": 1}\n\n{"user": "a", "item": "b"}\n')
    with pytest.raises(ValueError, match=r"log\.jsonl, line 4: `ts`.*got None\."):
        read(con, path)
    for value in (2.5, float("nan"), 1e30):
        log = tmp_path / f"{value}.parquet"
        pq.write_table(pa.table({"user": ["a", "b"], "item": ["a", "b"], "ts": [1.0, value]}), log)
        with pytest.raises(
            ValueError, match=re.escape(f"{log}, row 2: `ts` must be an integer (Unix seconds), got {value}")
        ):
            read(con, log)


@pytest.mark.parametrize(("line", "column"), [(",b,1", "user"), ("a,,1", "item"), ('a,"",1', "item")])
def test_empty_ids(con, write_log, line, column):
    path = write_log("log.csv", f"user,item,ts\na,b,1\n{line}\n")
    with pytest.raises(ValueError, match=rf"line 3: `{column}` must not be empty\."):
        read(con, path)


def test_a_header_and_nothing_else(con, write_log):
    with pytest.raises(ValueError, match="no interactions"):
        read(con, write_log("log.csv", "user,item,ts\n"))


@pytest.mark.parametrize("line", ["a,b", "a,b,1,2"])
def test_a_wrong_number_of_fields(con, write_log, line):
    with pytest.raises(ValueError, match=r"log\.csv is not a well-formed \.csv file.*Line: 3"):
        read(con, write_log("log.csv", f"user,item,ts\na,b,1\n{line}\n"))


def test_invalid_utf8_in_the_middle(con, write_log):
    with pytest.raises(ValueError, match=r"log\.csv is not a well-formed"):
        read(con, write_log("log.csv", b"user,item,ts\n" + b"a,b,1\n" * 20_000 + b"\xff,b,1\n"))


cell = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(st.lists(st.tuples(cell, cell, st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=8))
def test_any_raw_id_is_read_as_written(con, tmp_path_factory, events):
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
        assert read(con, folder / name) == events


@pytest.mark.parametrize(
    ("repeats", "kept"),
    [("keep", [0, 1, 2, 3, 4, 5]), ("first", [0, 1, 5]), ("last", [1, 4, 5]), ("consecutive", [0, 1, 2, 5])],
)
def test_repeats(con, write_log, repeats, kept):
    # By time u has x y x x; x at time 3 comes twice, in the order of the file.
    lines = ["u,x,1", "u,y,2", "u,x,3", "u,x,3", "u,x,3", "v,x,0"]
    path = write_log("log.csv", "\n".join(["user,item,ts", *lines]))
    events = drop_repeats(read_interactions(con, path, InteractionsArguments()), repeats)
    assert [order for (order,) in rows(events, "file_order")] == kept
    assert events.columns == ("user_id", "item_id", "timestamp", "file_order")


def test_k_core_goes_to_the_fixed_point(con, write_log):
    # Dropping z (one event) leaves c with one event; without c, y has one event; without y, b has one. a and x stay.
    pairs = ["a x", "a x", "b x", "b y", "c y", "c z"]
    path = write_log("log.csv", "\n".join(["user,item,ts", *(f"{pair.replace(' ', ',')},0" for pair in pairs)]))
    events = read_interactions(con, path, InteractionsArguments())
    assert len(rows(k_core(con, events, 1, 1))) == 6
    core = k_core(con, events, 2, 2)
    assert rows(core, "user_id", "item_id") == [("a", "x"), ("a", "x")]


def test_everything_filtered_away(con, write_log):
    events = read_interactions(con, write_log("log.csv", "user,item,ts\na,b,1\n"), InteractionsArguments())
    with pytest.raises(ValueError, match=r"no interactions are left.*`min_user_events`=2.*`min_item_events`=1"):
        k_core(con, events, 2, 1)


def test_items(con, write_log):
    path = write_log(
        "films.item",
        'item_id:token\tmovie_title:token_seq\ttitle:token\tcount:float\n1\t"Heat"\tt\t5\n2\tAlien\tt\t6\n1\tX\tt\t7\n',
    )
    # `title` is preferred over `movie_title`, and the catalog has a `count` of its own.
    items = read_items(con, path, InteractionsArguments()).order_by("item_id").to_pyarrow().to_pylist()
    assert items[0] == {"item_id": "1", "movie_title": '"Heat"', "title": "t", "item_count": "5"}
    asked = InteractionsArguments(title_column="movie_title")
    items = read_items(con, path, asked).order_by("item_id").to_pyarrow().to_pylist()
    assert items == [
        {"item_id": "1", "title": '"Heat"', "item_title": "t", "item_count": "5"},
        {"item_id": "2", "title": "Alien", "item_title": "t", "item_count": "6"},
    ]
    with pytest.raises(ValueError, match="`title_column` must be a column"):
        read_items(con, path, InteractionsArguments(title_column="name"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"repeats": "drop"}, "one of keep, first, last, consecutive, got 'drop'"),
        ({"min_user_events": 0}, "`min_user_events` must be at least 1"),
        ({"min_item_events": -1}, "`min_item_events` must be at least 1"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        InteractionsArguments(**arguments)


@pytest.mark.parametrize("package", ["ibis", "duckdb"])
def test_without_the_extra(package):
    code = f"""
import sys
sys.modules[{package!r}] = None
from hf_seqrec.data.interactions import connect
try:
    connect()
except ImportError as error:
    assert 'pip install "hf-seqrec[data]"' in str(error), error
else:
    raise AssertionError("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
