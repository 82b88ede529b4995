"""
Read a log of interactions and check every record of it: who, what, when.

Written once as Ibis expressions for both engines. What is read has the columns `user_id` and `item_id` (see
`raw_ids`), `time` (int64, see `raw_times`) and `file_order` (int64, rising through the log). Histories are ordered by
time, then by file order.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .columns import (
    ITEM_COLUMNS,
    RATING_COLUMNS,
    TIMESTAMP_COLUMNS,
    TITLE_COLUMNS,
    USER_COLUMNS,
    check_nesting,
    check_type,
    choose_column,
    find_column,
)
from .conditions import matches
from .engines import Rejected
from .history_rows import list_of_items, one_event_per_item
from .json_records import sample_records
from .log_files import RawFile
from .raw_ids import id_texts, raw_ids
from .raw_times import (
    DATE,
    EXPECTED,
    NUMBER,
    UNITS,
    TimesFound,
    exact_time,
    is_large,
    is_time,
    looks_mixed,
    note_missing_zones,
    parse_times,
)
from .text_files import check_whole, compression

if TYPE_CHECKING:
    import ibis

REPEATS = ("keep", "first", "last", "consecutive")


@dataclass
class InteractionsArguments:
    """How to read a log of interactions, and what to keep of it. Filters apply in the order of their fields."""

    user_column: str | None = field(default=None, metadata={"help": "Column of user ids. Common names are found."})
    item_column: str | None = field(default=None, metadata={"help": "Column of item ids. Common names are found."})
    timestamp_column: str | None = field(
        default=None, metadata={"help": "Column of times: numbers or dates. Common names are found."}
    )
    timestamp_unit: str | None = field(
        default=None,
        metadata={
            "help": "Unit of times that are numbers. Seconds and milliseconds are told apart.",
            "choices": list(UNITS),
        },
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

    Times may be numbers, dates, or dates with a time of day, as text or of a type of their own; see `raw_times`. Where
    each row holds a list of items, it must be one user's whole history, and becomes one event for each item.

    Raises:
        ValueError: if a column is missing, holds lists or objects, or differs from another in case only; if there are
            no interactions, or (unless bad rows are skipped) a row is malformed: a wrong number of fields, a missing
            id, a time that is none. The message names the first and says how many there are. Also if times are of two
            kinds or units.
    """
    names = choose_columns(raw, arguments)

    def prepare(table: "ibis.Table") -> dict[str, Any]:
        return _parsed(raw, table, names, arguments)

    with reading(raw):
        if list_of_items(raw, names["item_id"]) is None:
            events, rejected = engine.read(raw, names, prepare)
            rows, step = events, 1
        else:
            rows, rejected = engine.read(raw, names)
            events, step = one_event_per_item(engine, raw, rows, names)
            events = events.select(**prepare(events), file_order=events.file_order)
        if rejected.n and arguments.on_bad_rows == "error":
            raise ValueError(_bad_row(rejected.place, rejected.what, rejected.n))
        counts = _count(events)

        def place_of(file_order: int) -> str:
            return raw.place(rows.filter(rows.file_order < file_order // step).count().to_pyarrow().as_py())

        n_skipped = _check(raw, events, names, counts, rejected, place_of, arguments.on_bad_rows)
        if n_skipped:
            events = events.filter(lambda t: ~_any_wrong(t))
        found = _times_found(raw, names["written"], counts, place_of, arguments.timestamp_unit)
    time, unit = exact_time(events.whole, events.fraction, found, arguments.timestamp_unit)
    kept = [name for name in events.columns if name.startswith("where_") or name in ("user_id", "item_id", "number")]
    return Log(events.select(*kept, "file_order", time=time), unit, n_skipped)


def select_rows(events: "ibis.Table", arguments: InteractionsArguments) -> "ibis.Table":
    """Keep the rows with the values of `where`, rated `rating_threshold` or better."""
    for column in arguments.conditions:
        events = events.filter(events[f"where_{column}"])
    if arguments.rating_threshold is not None:
        events = events.filter(events.number >= arguments.rating_threshold)
    return events


def read_items(engine: Any, raw: RawFile, arguments: InteractionsArguments) -> "ibis.Table":
    """
    Read what is known about items: `item_id`, `title` if there is such a column, and every other column, as strings.

    Of an item that stands there more than once, the first row counts. Rows without an id are left out.

    Raises:
        ValueError: if a column is missing or a row is malformed.
    """
    import ibis

    wanted = arguments.item_column
    item = choose_column(raw, "item_column", None, (*ITEM_COLUMNS, *((wanted,) if wanted else ())))
    check_nesting(raw, item, "item_column")
    title = find_column(raw, TITLE_COLUMNS, "title_column")
    if arguments.title_column is not None:
        title = choose_column(raw, "title_column", arguments.title_column, ())
    columns = _names_in_catalog(raw, item, title)

    def prepare(table: "ibis.Table") -> dict[str, Any]:
        check_type(raw, item, table.item_id, "item_column")
        texts = {name: table[name].cast("string") for name in columns}
        return texts | {"item_id": id_texts(table.item_id)}

    with reading(raw):
        table, rejected = engine.read(raw, columns, prepare)
        if rejected.n and arguments.on_bad_rows == "error":
            raise ValueError(_bad_row(rejected.place, rejected.what, rejected.n))
    first = ibis.row_number().over(group_by="item_id", order_by="file_order")
    table = table.filter(table.item_id.notnull())
    return table.mutate(nth_row=first).filter(lambda t: t.nth_row == 0).drop("nth_row", "file_order")


@contextmanager
def reading(raw: RawFile) -> Iterator[None]:
    """Turn what an engine says about a malformed file into a `ValueError` that names the file."""
    try:
        yield
    except Exception as error:
        # Not every engine is installed, so that their errors cannot be named here.
        if type(error).__module__.split(".")[0] not in ("duckdb", "_duckdb", "pyspark", "py4j"):
            raise
        what = str(error).lower()
        if "no space left" in what or "max_temp_directory_size" in what:
            raise
        if "out of memory" in what:
            raise MemoryError(
                f"reading {raw.name} takes more memory than there is. Raise `memory_limit` if it is set, or give the "
                "log as Parquet, which takes the least."
            ) from error
        for path in raw.paths:
            _check_readable(raw, path)
        raise ValueError(
            f"{raw.label} cannot be read as {_FORMATS[raw.format]}. Open it to see whether it is that all the way, or "
            "convert it to Parquet."
        ) from error


_FORMATS = {"delimited": "a table of text", "json": "JSON", "parquet": "Parquet", "table": "a table"}


def _check_readable(raw: RawFile, path: Path) -> None:
    """Raise a `ValueError` that says which file is damaged and how, if that can be seen without an engine."""
    if compression(path):
        check_whole(path)
    if raw.is_array:
        sample_records(path, limit=None)
    if raw.format == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path) as file:
                for number in range(file.num_row_groups):
                    file.read_row_group(number)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(
                f"{path} is not a whole Parquet file: it was cut short or damaged. Fetch it again."
            ) from error


def choose_columns(raw: RawFile, arguments: InteractionsArguments) -> dict[str, str]:
    """Return the columns of the log that are read, by what they are called afterwards."""
    user = choose_column(raw, "user_column", arguments.user_column, USER_COLUMNS)
    item = choose_column(raw, "item_column", arguments.item_column, ITEM_COLUMNS)
    time = choose_column(raw, "timestamp_column", arguments.timestamp_column, TIMESTAMP_COLUMNS)
    names = {"user_id": user, "item_id": item, "written": time}
    items = list_of_items(raw, item)
    check_nesting(raw, user, "user_column")
    check_nesting(raw, item, "item_column", lists_too=False)
    check_nesting(raw, time, "timestamp_column", lists_too=items is None)
    if items not in (None, item):
        names["item_list"] = str(items)
    if arguments.rating_threshold is not None:
        names["rating"] = choose_column(raw, "rating_column", arguments.rating_column, RATING_COLUMNS)
        check_nesting(raw, names["rating"], "rating_column")
    for column in arguments.conditions:
        names[f"where_{column}"] = choose_column(raw, "where", column, ())
        check_nesting(raw, names[f"where_{column}"], "where")
    return names


def _parsed(
    raw: RawFile, table: "ibis.Table", names: dict[str, str], arguments: InteractionsArguments
) -> dict[str, Any]:
    """What the columns of a log mean; what cannot be understood is null, and kept as it was written for messages."""
    import ibis

    user, item = table.user_id, table.item_id
    check_type(raw, names["user_id"], user, "user_column")
    check_type(raw, names["item_id"], item, "item_column")
    check_type(raw, names["written"], table.written, "timestamp_column", is_time)
    if raw.format == "json":
        user, item = _without_nested(user), _without_nested(item)
    times = parse_times(table.written)
    nothing = ibis.null("string")
    parsed = {
        "user_id": raw_ids(user),
        "item_id": raw_ids(item),
        "written": times.whole.isnull().ifelse(table.written.cast("string"), nothing),
    } | times._asdict()
    if "rating" in names:
        check_type(raw, names["rating"], table.rating, "rating_column")
        number = table.rating.try_cast("float64")
        is_wrong = ibis.or_(number.isnull(), number.isnan())
        parsed |= {"number": number, "rating": is_wrong.ifelse(table.rating.cast("string"), nothing)}
    for column, value in arguments.conditions.items():
        name = f"where_{column}"
        check_type(raw, names[name], table[name], "where")
        parsed[name] = matches(raw.label, names[name], table[name], value)
    return parsed


def _without_nested(text: Any) -> Any:
    """Text of JSON, null where it is an object or a list."""
    import ibis

    # Objects and lists come as the text of their JSON; strings of this form are rare.
    is_nested = text.re_search(r'^(\{\s*("|\}))|^\[\s*("|-?[0-9]|\[|\{|\]|true|false|null)')
    begins = ibis.or_(text.startswith("{"), text.startswith("["))
    return ibis.cases((begins, is_nested.ifelse(ibis.null("string"), text)), else_=text)


def _names_in_catalog(raw: RawFile, item: str, title: str | None) -> dict[str, str]:
    """Return the columns about items by their names in the catalog, no two of which may differ in case only."""
    columns = {"item_id": item} | ({"title": title} if title is not None else {})
    # The columns that the catalog has itself, or has while it is built.
    taken = {"row", "count", "n", "item", "item_id", "item_id_right", "title"}
    for column in raw.columns:
        if column in columns.values() or column.startswith("Unnamed: "):
            continue
        name = f"item_{column}" if column.lower() in taken else column
        while name.lower() in taken:
            name += "_2"
        taken.add(name.lower())
        columns[name] = column
    return columns


def _wrong(events: "ibis.Table") -> dict[str, Any]:
    """By column: where a record cannot be used."""
    import ibis

    conditions = {}
    for name in ("user_id", "item_id"):
        column = events[name]
        conditions[name] = ibis.or_(column.isnull(), column == "") if column.type().is_string() else column.isnull()
    conditions["written"] = events.whole.isnull()
    if "number" in events.columns:
        conditions["rating"] = ibis.or_(events.number.isnull(), events.number.isnan())
    return conditions


def _any_wrong(events: "ibis.Table") -> Any:
    import ibis

    return ibis.or_(*_wrong(events).values())


def _count(events: "ibis.Table") -> dict[str, Any]:
    """Count what is wrong in one pass over the log, and look at the times that are right."""
    wrong = _wrong(events)
    good = ~_any_wrong(events)
    columns = {
        "n": events.count(),
        "n_wrong": _any_wrong(events).sum(),
        "n_large": is_large(events.whole).sum(where=good),
        "smallest": events.whole.min(where=good),
        "largest": events.whole.max(where=good),
        "fraction": events.fraction.max(where=good),
        "finest": (events.fraction % 1000).max(where=good),
        "first_number": events.file_order.min(where=good & (events.kind == NUMBER)),
        "first_date": events.file_order.min(where=good & (events.kind == DATE)),
        "n_without_zone": (~events.has_zone).sum(where=good),
    }
    for name, condition in wrong.items():
        columns |= {f"first_{name}": events.file_order.min(where=condition), f"count_{name}": condition.sum()}
    return dict(events.agg(**columns).to_pyarrow().to_pylist()[0])


def _check(
    raw: RawFile,
    events: "ibis.Table",
    names: dict[str, str],
    counts: dict[str, Any],
    rejected: Rejected,
    place_of: Callable[[int], str],
    on_bad_rows: str,
) -> dict[str, int]:
    """Raise on the first row that cannot be used, or count those that are left out, by what is wrong with them."""
    if counts["n"] == (counts["n_wrong"] or 0):
        if on_bad_rows == "skip" and (counts["n"] or rejected.n):
            raise ValueError(f"{raw.name} has no row that is well-formed; `on_bad_rows=error` says what is wrong.")
        if not counts["n"]:
            raise ValueError(f"{raw.name} has columns and no interactions.")
    skipped = {"wrong number of fields or invalid text": rejected.n} if rejected.n else {}
    for name, condition in _wrong(events).items():
        if not counts[f"count_{name}"]:
            continue
        column, n = names[name], counts[f"count_{name}"]
        if on_bad_rows == "skip":
            skipped[f"`{column}` missing or malformed"] = n
            continue
        place = place_of(counts[f"first_{name}"])
        if name in ("user_id", "item_id"):
            hint = ", a list or an object (or the line is no JSON object)" if raw.format == "json" else ""
            raise ValueError(_bad_row(place, f"`{column}` must not be empty{hint}", n))
        value = events.filter(condition).order_by("file_order").limit(1)[name].to_pyarrow()[0].as_py()
        expected = EXPECTED if name == "written" else "a number"
        raise ValueError(_bad_row(place, f"`{column}` must be {expected}, got {value!r}", n))
    return skipped


def _bad_row(place: str, what: str, n: int) -> str:
    others = f" ({n:,} such rows)" if n > 1 else ""
    return f"{place}: {what}{others}. Correct the log, or leave such rows out with `on_bad_rows=skip`."


def _times_found(
    raw: RawFile,
    column: str,
    counts: dict[str, Any],
    place_of: Callable[[int], str],
    unit: str | None,
) -> TimesFound:
    """Describe the times of a log, which must be of one kind and one unit."""
    number, date = counts["first_number"], counts["first_date"]
    if number is not None and date is not None:
        kinds = ("a date", "numbers") if number < date else ("a number", "dates")
        raise ValueError(
            f"{place_of(max(number, date))}: `{column}` must be of one kind in all rows, found {kinds[0]} after "
            f"{kinds[1]}. Convert one of them."
        )
    found = TimesFound(
        counts["n"] - (counts["n_wrong"] or 0),
        counts["n_large"] or 0,
        counts["smallest"],
        counts["largest"],
        bool(counts["fraction"]),
        bool(counts["finest"]),
        date is not None,
    )
    note_missing_zones(raw.name, column, counts["n_without_zone"] or 0)
    if unit is None and not found.is_date and looks_mixed(found):
        raise ValueError(
            f"{raw.name}: `{column}` must be of one unit; {found.n_large:,} of {found.n:,} timestamps look like "
            f"milliseconds, the others like seconds (such as {found.smallest}). Correct the log, or say what they "
            "all are with `timestamp_unit`."
        )
    return found
