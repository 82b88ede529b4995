"""
Read a log of interactions and check every record of it: who, what, when.

Written once as Ibis expressions for both engines. What is read has the columns `user_id` and `item_id` (as written, of
the file's own type), `time` (int64, in the unit of the log) and `file_order` (int64, rising through the log).
Histories are ordered by time, then by file order.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .engines import Rejected
from .log_files import RawFile

if TYPE_CHECKING:
    import ibis

# What to call the columns where nobody says, best first; whatever the case.
USER_COLUMNS = ("user_id", "user", "userid", "uid", "reviewerid", "customer_id", "visitorid")
ITEM_COLUMNS = (
    "item_id", "item", "itemid", "iid", "movie_id", "movieid", "product_id", "parent_asin", "asin", "video_id",
    "track_id",
)  # fmt: skip
TIMESTAMP_COLUMNS = ("timestamp", "time", "ts", "unix_time", "unixreviewtime", "time_ms")
RATING_COLUMNS = ("rating", "overall", "stars", "score")
TITLE_COLUMNS = ("title", "movie_title", "name")
REPEATS = ("keep", "first", "last", "consecutive")
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
# Seconds do not reach this until the year 5138; milliseconds passed it in 1973.
_TOO_LARGE_FOR_SECONDS = 10**11


@dataclass
class InteractionsArguments:
    """How to read a log of interactions, and what to keep of it. Filters apply in the order of their fields."""

    user_column: str | None = field(default=None, metadata={"help": "Column of user ids. Common names are found."})
    item_column: str | None = field(default=None, metadata={"help": "Column of item ids. Common names are found."})
    timestamp_column: str | None = field(
        default=None, metadata={"help": "Column of Unix times, whole numbers. Common names are found."}
    )
    timestamp_unit: str | None = field(
        default=None,
        metadata={"help": "Unit of the timestamps. Seconds and milliseconds are told apart.", "choices": list(UNITS)},
    )
    on_bad_rows: str = field(
        default="error",
        metadata={
            "help": "What to do with rows that are malformed: stop with an `error` that names the first, or `skip` "
            "and count them.",
            "choices": ["error", "skip"],
        },
    )
    where: list[str] = field(
        default_factory=list,
        metadata={"help": "Keep only rows with these values, such as `--where is_click=1 tab=0`."},
    )
    rating_threshold: float | None = field(
        default=None, metadata={"help": "Keep only rows rated this or better.", "metavar": "RATING"}
    )
    rating_column: str | None = field(default=None, metadata={"help": "Column of ratings. Common names are found."})
    repeats: str = field(
        default="keep",
        metadata={
            "help": "What to do when a user has an item more than once: `keep` all, only the `first` or the `last`, "
            "or the first of every `consecutive` run.",
            "choices": list(REPEATS),
        },
    )
    max_users: int | None = field(default=None, metadata={"help": "Keep the users whom the log names first."})
    max_items: int | None = field(default=None, metadata={"help": "Keep the most popular items."})
    last_n: int | None = field(default=None, metadata={"help": "Keep each user's most recent events."})
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
        for name, allowed in (("repeats", REPEATS), ("on_bad_rows", ("error", "skip"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"`{name}` must be one of {', '.join(allowed)}, got {getattr(self, name)!r}.")
        if self.timestamp_unit is not None and self.timestamp_unit not in UNITS:
            raise ValueError(f"`timestamp_unit` must be one of {', '.join(UNITS)}, got {self.timestamp_unit!r}.")
        for name in ("min_user_events", "min_item_events", "max_users", "max_items", "last_n"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}. Leave it out to keep all.")
        for condition in self.where:
            if "=" not in condition:
                raise ValueError(f"`where` must hold conditions such as `is_click=1`, got {condition!r}.")

    @property
    def conditions(self) -> dict[str, str]:
        """What `where` asks for: the value by column."""
        return dict(condition.split("=", 1) for condition in self.where)


@dataclass(frozen=True)
class Log:
    """
    A log that was read and checked.

    Fields:
        events (`ibis.Table`): `user_id`, `item_id`, `time`, `file_order`, and the columns that filters look at.
        time_unit (`str`): Of `time`.
        n_skipped (`dict[str, int]`): Malformed rows that were left out, by what was wrong with them.
    """

    events: "ibis.Table"
    time_unit: str
    n_skipped: dict[str, int]


def read_interactions(engine: Any, raw: RawFile, arguments: InteractionsArguments) -> Log:
    """
    Read a log.

    Timestamps may be integers or floats without a fraction (`978300760.0`); dates and times of a Parquet file become
    Unix seconds.

    Raises:
        ValueError: if a column is missing, it has no interactions, or (unless bad rows are skipped) a row is
            malformed: a wrong number of fields, an empty id, a timestamp that is no integer. The message names the
            first and says how many there are. Also if some timestamps look like seconds and others like milliseconds.
    """
    names = choose_columns(raw, arguments)
    with reading(raw):
        table, rejected = engine.read(raw, list(dict.fromkeys(names.values())))
        if rejected.n and arguments.on_bad_rows == "error":
            raise ValueError(_bad_row(rejected.place, rejected.what, rejected.n))
        events = table.select(**{name: table[column] for name, column in names.items()}, file_order=table.file_order)
        events = events.mutate(time=_whole_number(events.written))
        if "rating" in names:
            events = events.mutate(number=events.rating.try_cast("float64"))
        n_skipped = _check(raw, events, names, rejected, arguments.on_bad_rows)
        if n_skipped:
            events = events.filter(lambda t: ~_any_wrong(t))
        unit = arguments.timestamp_unit or _time_unit(raw, events, names["written"])
    return Log(events.drop("written"), unit, n_skipped)


def choose_columns(raw: RawFile, arguments: InteractionsArguments) -> dict[str, str]:
    """
    Return which columns of a log hold users, items, times, and what filters look at; only its header is read.

    Raises:
        ValueError: if one is missing.
    """
    names = {
        "user_id": _choose_column(raw, "user_column", arguments.user_column, USER_COLUMNS),
        "item_id": _choose_column(raw, "item_column", arguments.item_column, ITEM_COLUMNS),
        "written": _choose_column(raw, "timestamp_column", arguments.timestamp_column, TIMESTAMP_COLUMNS),
    }
    if arguments.rating_threshold is not None:
        names["rating"] = _choose_column(raw, "rating_column", arguments.rating_column, RATING_COLUMNS)
    for column in arguments.conditions:
        names[f"where_{column}"] = _choose_column(raw, "where", column, ())
    return names


def select_rows(events: "ibis.Table", arguments: InteractionsArguments) -> "ibis.Table":
    """Keep the rows with the values of `where`, rated `rating_threshold` or better."""
    for column, value in arguments.conditions.items():
        events = events.filter(events[f"where_{column}"].cast("string") == value)
    if arguments.rating_threshold is not None:
        events = events.filter(events.number >= arguments.rating_threshold)
    return events


def read_items(engine: Any, raw: RawFile, arguments: InteractionsArguments) -> "ibis.Table":
    """
    Read what is known about items: `item_id`, `title` if there is such a column, and every other column, as strings.

    Of an item that stands there more than once, the first row counts.

    Raises:
        ValueError: if a column is missing or a row is malformed.
    """
    import ibis

    item = _choose_column(raw, "item_column", None, (*ITEM_COLUMNS, (arguments.item_column or "").lower()))
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
    with reading(raw):
        table, rejected = engine.read(raw, list(columns.values()))
        if rejected.n and arguments.on_bad_rows == "error":
            raise ValueError(_bad_row(rejected.place, rejected.what, rejected.n))
        table = table.select(
            **{name: table[column].cast("string") for name, column in columns.items()}, file_order=table.file_order
        )
    first = ibis.row_number().over(group_by="item_id", order_by="file_order")
    return table.mutate(nth=first).filter(lambda t: t.nth == 0).drop("nth", "file_order")


@contextmanager
def reading(raw: RawFile) -> Iterator[None]:
    """Turn what an engine says about a malformed file into a `ValueError` that names the file."""
    try:
        yield
    except Exception as error:
        # Not every engine is installed, so that their errors cannot be named here.
        if type(error).__module__.split(".")[0] not in ("duckdb", "_duckdb", "pyspark", "py4j"):
            raise
        what = str(error).split("Possible fixes")[0].split("\n\n")[0].strip()
        if "no space left" in what.lower():
            raise
        raise ValueError(f"{raw.paths[0]} is not a well-formed {raw.paths[0].suffix} file: {what}") from error


def _choose_column(raw: RawFile, option: str, asked: str | None, common: tuple[str, ...]) -> str:
    if asked is not None:
        if asked in raw.columns:
            return asked
        raise ValueError(
            f"`{option}` must be a column of {raw.paths[0]}, got {asked!r}; it has {', '.join(raw.columns) or 'none'}."
        )
    found = _find_column(raw.columns, common)
    if found is None:
        raise ValueError(
            f"{raw.paths[0]} must have a column such as {', '.join(common[:3])}; it has "
            f"{', '.join(raw.columns) or 'none'}. Name the right one with `{option}`."
        )
    return found


def _find_column(columns: list[str], common: tuple[str, ...]) -> str | None:
    by_lower_case = {name.lower(): name for name in reversed(columns)}
    return next((by_lower_case[name] for name in common if name in by_lower_case), None)


def _whole_number(written: Any) -> Any:
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


def _wrong(events: "ibis.Table") -> dict[str, Any]:
    """By column: where a record cannot be used."""
    import ibis

    conditions = {}
    for name in ("user_id", "item_id"):
        column = events[name]
        conditions[name] = ibis.or_(column.isnull(), column == "") if column.type().is_string() else column.isnull()
    conditions["written"] = events.time.isnull()
    if "number" in events.columns:
        conditions["rating"] = ibis.or_(events.number.isnull(), events.number.isnan())
    return conditions


def _any_wrong(events: "ibis.Table") -> Any:
    import ibis

    return ibis.or_(*_wrong(events).values())


def _check(
    raw: RawFile, events: "ibis.Table", names: dict[str, str], rejected: Rejected, on_bad_rows: str
) -> dict[str, int]:
    """Raise on the first row that cannot be used, or count those that are left out, by what is wrong with them."""
    wrong = _wrong(events)
    found = events.agg(
        n=events.count(),
        **{f"first_{name}": events.file_order.min(where=condition) for name, condition in wrong.items()},
        **{f"count_{name}": condition.sum() for name, condition in wrong.items()},
        n_wrong=_any_wrong(events).sum(),
    )
    counts = found.to_pyarrow().to_pylist()[0]
    if counts["n"] == (counts["n_wrong"] or 0):
        if on_bad_rows == "skip" and (counts["n"] or rejected.n):
            raise ValueError(f"{raw.name} has no row that is well-formed; `on_bad_rows=error` says what is wrong.")
        if not counts["n"]:
            raise ValueError(f"{raw.name} has a header and no interactions.")
    skipped = {"wrong number of fields or invalid text": rejected.n} if rejected.n else {}
    for name, condition in wrong.items():
        if not counts[f"count_{name}"]:
            continue
        column, n = names[name], counts[f"count_{name}"]
        if on_bad_rows == "skip":
            skipped[f"`{column}` missing or malformed"] = n
            continue
        row = events.filter(events.file_order < counts[f"first_{name}"]).count().to_pyarrow().as_py()
        if name in ("user_id", "item_id"):
            hint = " (or the line is no JSON object)" if raw.format == "json" else ""
            raise ValueError(_bad_row(raw.place(row), f"`{column}` must not be empty{hint}", n))
        value = events.filter(condition).order_by("file_order").limit(1)[name].to_pyarrow()[0].as_py()
        expected = "an integer (Unix seconds)" if name == "written" else "a number"
        raise ValueError(_bad_row(raw.place(row), f"`{column}` must be {expected}, got {value!r}", n))
    return skipped


def _bad_row(place: str, what: str, n: int) -> str:
    others = f" ({n:,} such rows)" if n > 1 else ""
    return f"{place}: {what}{others}. Correct the log, or leave such rows out with `on_bad_rows=skip`."


def _time_unit(raw: RawFile, events: "ibis.Table", column: str) -> str:
    """Tell seconds from finer units by their size."""
    is_large = events.time >= _TOO_LARGE_FOR_SECONDS
    found = (
        events.agg(n=events.count(), n_large=is_large.sum(), smallest=events.time.min()).to_pyarrow().to_pylist()[0]
    )
    if not found["n_large"]:
        return "s"
    if found["n_large"] < found["n"]:
        raise ValueError(
            f"{raw.name}: `{column}` must be of one unit; {found['n_large']:,} of {found['n']:,} timestamps look like "
            f"milliseconds, the others like seconds (such as {found['smallest']}). Correct the log, or say what they "
            "all are with `timestamp_unit`."
        )
    return "ms" if found["smallest"] < 10**14 else "us" if found["smallest"] < 10**17 else "ns"
