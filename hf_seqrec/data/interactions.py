"""
From a log to the events that count: read, check, de-duplicate, iterated k-core.

Written once as Ibis expressions. An events table has the columns `user_id` and `item_id` (strings), `timestamp`
(int64, Unix seconds) and `file_order` (int64, position in the log). Histories are ordered by timestamp, then by file
order.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .raw_files import RawFile

if TYPE_CHECKING:
    import ibis

# What to call the columns where nobody says, best first; whatever the case.
USER_COLUMNS = ("user_id", "user", "userid", "uid", "reviewerid", "customer_id", "visitorid")
ITEM_COLUMNS = (
    "item_id", "item", "itemid", "iid", "movie_id", "movieid", "product_id", "parent_asin", "asin", "video_id",
    "track_id",
)  # fmt: skip
TIMESTAMP_COLUMNS = ("timestamp", "time", "ts", "unix_time", "unixreviewtime", "time_ms")
TITLE_COLUMNS = ("title", "movie_title", "name")
REPEATS = ("keep", "first", "last", "consecutive")


@dataclass
class InteractionsArguments:
    """How to read a log of interactions, and what to keep of it."""

    user_column: str | None = field(default=None, metadata={"help": "Column of user ids. Common names are found."})
    item_column: str | None = field(default=None, metadata={"help": "Column of item ids. Common names are found."})
    timestamp_column: str | None = field(
        default=None, metadata={"help": "Column of Unix seconds, whole numbers. Common names are found."}
    )
    repeats: str = field(
        default="keep",
        metadata={
            "help": "What to do when a user has an item more than once: `keep` all, only the `first` or the `last`, "
            "or the first of every `consecutive` run.",
            "choices": list(REPEATS),
        },
    )
    min_user_events: int = field(
        default=1, metadata={"help": "Drop users with fewer events, again and again until nothing changes (k-core)."}
    )
    min_item_events: int = field(default=1, metadata={"help": "Drop items with fewer events, likewise."})
    items: str | None = field(
        default=None,
        metadata={"help": "File about the items. A .item file of the same name as a .inter file is found."},
    )
    title_column: str | None = field(
        default=None, metadata={"help": "Column of titles in `items`. Common names are found."}
    )

    def __post_init__(self) -> None:
        if self.repeats not in REPEATS:
            raise ValueError(f"`repeats` must be one of {', '.join(REPEATS)}, got {self.repeats!r}.")
        for name in ("min_user_events", "min_item_events"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1 (which keeps all), got {getattr(self, name)}.")


def connect(temp_directory: str | Path | None = None) -> Any:
    """
    Open an embedded DuckDB that spills what does not fit into memory to `temp_directory`.

    Raises:
        ImportError: if Ibis or DuckDB is not installed.
    """
    try:
        import ibis

        con = ibis.duckdb.connect()
    except ImportError as error:
        raise ImportError(
            'Building a dataset from a log needs Ibis and DuckDB: pip install "hf-seqrec[data]". '
            "Finished dataset folders load without them."
        ) from error
    con.raw_sql("SET enable_progress_bar = false")
    if temp_directory is not None:
        escaped = str(temp_directory).replace("'", "''")
        con.raw_sql(f"SET temp_directory = '{escaped}'")
    return con


def read_interactions(con: Any, path: str | Path, arguments: InteractionsArguments) -> "ibis.Table":
    """
    Read a log into an events table.

    Timestamps may be integers or floats without a fraction (`978300760.0`); dates and times of a Parquet file become
    Unix seconds.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if its ending is unknown, a column is missing, an id is empty, a timestamp is not an integer (the
            message names the line), or it has no interactions.
    """
    import ibis

    raw = RawFile.open(path)
    user, item, timestamp = (
        _choose_column(raw, option, asked, common)
        for option, asked, common in (
            ("user_column", arguments.user_column, USER_COLUMNS),
            ("item_column", arguments.item_column, ITEM_COLUMNS),
            ("timestamp_column", arguments.timestamp_column, TIMESTAMP_COLUMNS),
        )
    )
    with _reading(raw):
        table = raw.read(con)
        table = table.select(
            user_id=table[user].cast("string"), item_id=table[item].cast("string"), written=table[timestamp]
        ).mutate(file_order=ibis.row_number().cast("int64"))
        table = materialize(con, "log", table)
    events = table.mutate(timestamp=_whole_seconds(table.written))
    _check_events(raw, events, user, item, timestamp)
    return events.select("user_id", "item_id", "timestamp", "file_order")


def read_items(con: Any, path: str | Path, arguments: InteractionsArguments) -> "ibis.Table":
    """
    Read what is known about items: `item_id`, `title` if there is such a column, and every other column, as strings.

    Of an item that stands there more than once, the first row counts.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if its ending is unknown or a column is missing.
    """
    import ibis

    raw = RawFile.open(path)
    item = _choose_column(raw, "item_column", None, ITEM_COLUMNS)
    found = _find_column(raw.columns, TITLE_COLUMNS)
    asked = arguments.title_column
    title = found if asked is None else _choose_column(raw, "title_column", asked, ())
    names = {item: "item_id"} | ({title: "title"} if title is not None else {})
    columns = {}
    for column in raw.columns:
        name = names.get(column, column)
        # The catalog's own columns, and another column that happens to be called title.
        taken = column not in names and name in ("row", "count", "item_id", "title")
        columns[f"item_{name}" if taken else name] = column
    with _reading(raw):
        table = raw.read(con)
        table = table.select(**{name: table[column].cast("string") for name, column in columns.items()})
        table = materialize(con, "items", table.mutate(file_order=ibis.row_number()))
    first = ibis.row_number().over(group_by="item_id", order_by="file_order")
    return table.mutate(nth=first).filter(lambda t: t.nth == 0).drop("nth", "file_order")


def drop_repeats(events: "ibis.Table", repeats: str) -> "ibis.Table":
    """Keep all events of a user with the same item, the first, the last, or the first of each consecutive run."""
    import ibis

    if repeats == "keep":
        return events
    time = [events.timestamp, events.file_order]
    if repeats == "consecutive":
        previous = events.item_id.lag().over(group_by="user_id", order_by=time)
        kept = events.mutate(previous=previous).filter(lambda t: t.previous.isnull() | (t.previous != t.item_id))
        return kept.drop("previous")
    order = time if repeats == "first" else [key.desc() for key in time]
    nth = ibis.row_number().over(group_by=["user_id", "item_id"], order_by=order)
    return events.mutate(nth=nth).filter(lambda t: t.nth == 0).drop("nth")


def k_core(con: Any, events: "ibis.Table", min_user_events: int, min_item_events: int) -> "ibis.Table":
    """
    Drop users and items with too few events until every one that remains has enough.

    Raises:
        ValueError: if nothing remains.
    """
    remaining = materialize(con, "events", events)
    n_events = remaining.count().to_pyarrow().as_py()
    while min_user_events > 1 or min_item_events > 1:
        kept = remaining
        for key, least in (("user_id", min_user_events), ("item_id", min_item_events)):
            enough = kept.group_by(key).agg(n=kept.count()).filter(lambda t, least=least: t.n >= least)
            kept = kept.semi_join(enough, key)
        previous, remaining = remaining, materialize(con, "events", kept)
        # Not `con.drop_table`: Ibis 12 writes no name into the statement with sqlglot 30.
        con.raw_sql(f"DROP TABLE {previous.get_name()}")
        n_before, n_events = n_events, remaining.count().to_pyarrow().as_py()
        if n_events == n_before:
            break
    if not n_events:
        raise ValueError(
            f"no interactions are left: no users with `min_user_events`={min_user_events} and items with "
            f"`min_item_events`={min_item_events} events remain. Lower them."
        )
    return remaining


def materialize(con: Any, name: str, table: "ibis.Table") -> "ibis.Table":
    """Compute a table into a temporary one, whose name begins with `name`."""
    import ibis

    return con.create_table(ibis.util.gen_name(name), table, temp=True)


@contextmanager
def _reading(raw: RawFile) -> Iterator[None]:
    """Turn what an engine says about a malformed file into a `ValueError` that names the file."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        what = str(error).split("Possible fixes")[0].split("\n\n")[0].strip()
        raise ValueError(f"{raw.path} is not a well-formed {raw.path.suffix} file: {what}") from error


def _choose_column(raw: RawFile, option: str, asked: str | None, common: tuple[str, ...]) -> str:
    if asked is not None:
        if asked in raw.columns:
            return asked
        raise ValueError(
            f"`{option}` must be a column of {raw.path}, got {asked!r}; it has {', '.join(raw.columns) or 'none'}."
        )
    found = _find_column(raw.columns, common)
    if found is None:
        raise ValueError(
            f"{raw.path} must have a column such as {', '.join(common[:3])}; it has "
            f"{', '.join(raw.columns) or 'none'}. Name the right one with `{option}`."
        )
    return found


def _find_column(columns: list[str], common: tuple[str, ...]) -> str | None:
    by_lower_case = {name.lower(): name for name in reversed(columns)}
    return next((by_lower_case[name] for name in common if name in by_lower_case), None)


def _whole_seconds(written: Any) -> Any:
    """Timestamps as int64, null where they are none."""
    import ibis

    kind = written.type()
    if kind.is_integer():
        return written.try_cast("int64")
    if kind.is_floating():
        seconds = written.try_cast("int64")
        return (seconds.cast("float64") == written).ifelse(seconds, ibis.null("int64"))
    if kind.is_date() or kind.is_timestamp():
        return written.cast("timestamp").epoch_seconds().cast("int64")
    # A string is first held against a pattern: engines round 1.5 and read 1e3.
    text = written.cast("string").strip()
    is_whole = text.re_search(r"^[+-]?[0-9]+(\.0*)?$")
    return is_whole.ifelse(text.re_replace(r"\.0*$", ""), ibis.null("string")).try_cast("int64")


def _check_events(raw: RawFile, events: "ibis.Table", user: str, item: str, timestamp: str) -> None:
    """Raise on the first row with an empty id or a timestamp that is no integer."""
    import ibis

    wrong = {
        user: ibis.or_(events.user_id.isnull(), events.user_id == ""),
        item: ibis.or_(events.item_id.isnull(), events.item_id == ""),
        timestamp: events.timestamp.isnull(),
    }
    found = events.agg(
        n=events.count(),
        **{f"first_{i}": events.file_order.min(where=condition) for i, condition in enumerate(wrong.values())},
        **{f"count_{i}": condition.sum() for i, condition in enumerate(wrong.values())},
    )
    counts = found.to_pyarrow().to_pylist()[0]
    if not counts["n"]:
        raise ValueError(f"{raw.path} has a header and no interactions.")
    for i, column in enumerate(wrong):
        if not counts[f"count_{i}"]:
            continue
        row, total = counts[f"first_{i}"], counts[f"count_{i}"]
        where = f"{raw.path}, {raw.place(row)}"
        others = f" ({total:,} such rows)" if total > 1 else ""
        if column != timestamp:
            raise ValueError(f"{where}: `{column}` must not be empty{others}.")
        value = events.filter(events.file_order == row).written.to_pyarrow()[0].as_py()
        raise ValueError(f"{where}: `{column}` must be an integer (Unix seconds), got {value!r}{others}.")
