"""Build a dataset folder from a log of interactions."""

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

from ..data.catalog import Catalog
from .dataset_card import About
from .dataset_folder import check_replaceable, fill_dataset_folder, replacing_dataset_folder
from .engines import ENGINES, open_engine
from .filters import apply_filters
from .log_files import RawFile
from .numbering import EncodedLog, encode
from .raw_times import UNITS, whole_seconds
from .read_log import InteractionsArguments, Log, read_interactions, read_items, reading, select_rows
from .sequence_files import write_sequences

if TYPE_CHECKING:
    import ibis


@dataclass
class BuildArguments:
    """How to compute a dataset folder; the folder's content does not depend on it, but for `num_shards`."""

    engine: str = field(
        default="duckdb",
        metadata={
            "help": "`duckdb` on this machine, out of core; `pyspark` where a machine is not enough.",
            "choices": list(ENGINES),
        },
    )
    memory_limit: str | None = field(
        default=None,
        metadata={"help": "What the engine may take, such as 6GB. DuckDB takes most of the memory if left out."},
    )
    num_shards: int | None = field(
        default=None, metadata={"help": "Parquet files of the sequences. One for each 25 million events if left out."}
    )

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise ValueError(f"`engine` must be one of {', '.join(ENGINES)}, got {self.engine!r}.")
        if self.num_shards is not None and self.num_shards < 1:
            raise ValueError(f"`num_shards` must be at least 1, got {self.num_shards}.")


def build_dataset(
    raw: Any,
    output: str | Path,
    arguments: InteractionsArguments | None = None,
    build_arguments: BuildArguments | None = None,
    items: Any = None,
    about: About | None = None,
    fingerprint: str | None = None,
    progress: bool = False,
    check: Callable[[Path], None] | None = None,
) -> Path:
    r"""
    Turn a log of interactions into a dataset folder and return its path.

    Users stand in the order in which the log first names them, a user's events by time, then by position in the
    log. Catalog rows go by popularity, equal counts by raw id.

    Args:
        raw (`str`, a list of them, a table, or `RawFile`):
            A `.inter`, `.csv`, `.tsv`, `.jsonl`, `.json` or `.parquet` file (text may be compressed), several of them,
            a description of files, or a table of pandas, Arrow or Polars.
        output (`str`): The folder. May not exist, be empty, or hold an earlier dataset, which is replaced.
        arguments (`InteractionsArguments`, *optional*): Columns and filters.
        build_arguments (`BuildArguments`, *optional*): Engine, memory, files.
        items (a file, a table, or `RawFile`, *optional*):
            What is known about the items, instead of `arguments.items`.
        about (`About`, *optional*): What the card says of the source.
        fingerprint (`str`, *optional*): Noted in `statistics.json`, to recognise what was built from what.
        progress (`bool`, *optional*, defaults to `False`): Whether to show a progress bar.
        check (`Callable[[Path], None]`, *optional*): Is given the finished folder before it takes the place of an
            earlier one; what it raises leaves that as it was.

    Raises:
        ImportError: if the engine is not installed.
        FileNotFoundError: if there is no such log.
        TypeError: if the log is neither files nor a table.
        FileExistsError: if `output` holds something else, or another process is writing it.
        ValueError: if the log is malformed (the message names the line) or the filters leave nothing.
        OSError: if the disk is full.

    Example:

    ```python
    >>> build_dataset("ml-1m.inter", "data/ml-1m", InteractionsArguments(min_user_events=5, min_item_events=5))
    >>> build_dataset(pandas.read_sql("SELECT * FROM events", connection), "data/my-shop")
    ```
    """
    raw = RawFile.open(raw)
    arguments, build_arguments = arguments or InteractionsArguments(), build_arguments or BuildArguments()
    items = _item_file(raw, arguments) if items is None else RawFile.open(items)
    if arguments.title_column is not None and items is None:
        raise ValueError("`title_column` must come with `items`, the file that has this column.")
    about = about or About(raw.stem if raw.paths else Path(output).name)
    check_replaceable(output)
    with replacing_dataset_folder(output) as folder, tqdm(total=4, disable=not progress) as bar:
        work = folder / "work"
        work.mkdir()
        engine = open_engine(build_arguments.engine, work, build_arguments.memory_limit)
        try:
            bar.set_description(f"Reading {raw.name}")
            log = read_interactions(engine, raw, arguments)
            with reading(raw):
                encoded, steps = _encode(engine, log, arguments)
            bar.update()

            bar.set_description("Filtering")
            events = encoded.events
            for name, events in apply_filters(engine, encoded.events, arguments):
                steps.append(_step(name, events))
            bar.update()

            bar.set_description("Catalog")
            is_filtered = events is not encoded.events
            with reading(items or raw):
                known = read_items(engine, items, arguments) if items else None
                rows, catalog = number_items(engine, encoded, events if is_filtered else None, known)
            bar.update()

            bar.set_description("Sequences")
            users = encoded.users
            if is_filtered:
                users = users.drop("n").join(events.group_by("user").agg(n=events.count()), "user")
            users = users.order_by("user").to_pyarrow()
            user_ids, lengths = users["user_id"].combine_chunks(), users["n"].to_numpy().astype(np.int64)
            statistics: dict[str, Any] = {
                "source": {"name": raw.name} | _options(arguments),
                "fingerprint": fingerprint,
                "timestamp_unit": log.time_unit,
                "steps": steps,
                "skipped_rows": log.n_skipped,
            }
            if "title" in catalog.table.column_names:
                statistics["n_items_without_title"] = catalog.table["title"].null_count

            def write(target: Path) -> None:
                in_order = ordered_events(events, rows if is_filtered else None, UNITS[log.time_unit])
                write_sequences(target, user_ids, lengths, engine.stream(in_order), build_arguments.num_shards)

            source = f"`{raw.name}`" if raw.paths else raw.name
            note = about.note or f"Histories for sequential recommendation, built from {source} by hf_seqrec."
            fill_dataset_folder(folder, catalog, lengths, write, statistics, dataclasses.replace(about, note=note))
            bar.update()
        finally:
            engine.close()
            shutil.rmtree(work)
        if check is not None:
            check(folder)
    return Path(output)


def number_items(
    engine: Any, encoded: EncodedLog, events: "ibis.Table | None", known: "ibis.Table | None"
) -> "tuple[ibis.Table, Catalog]":
    """
    Give the row of each item (`item`, `row`) and the catalog: rows from 1 by popularity, then by raw id.

    Args:
        engine: Where to compute it.
        encoded (`EncodedLog`): The log, whose items are numbered like this already.
        events (`ibis.Table`, *optional*): The events that filters have left, if they took any.
        known (`ibis.Table`, *optional*): What is known about the items, as `read_items` gives it.
    """
    import ibis

    if events is None:
        table = encoded.items.rename(count="n")
    else:
        table = encoded.items.drop("n").join(events.group_by("item").agg(count=events.count()), "item")
    by_popularity = ibis.row_number().over(order_by=[ibis.desc("count"), ibis.asc("item_id")])
    table = table.mutate(row=(by_popularity + 1).cast("int32")).select("row", "item_id", "count", "item")
    if known is not None:
        table = table.left_join(known, "item_id").drop("item_id_right")
    rows = engine.materialize("catalog", table)
    found = rows.drop("item").order_by("row").to_pyarrow()
    return rows.select("item", "row"), Catalog(found.cast(_catalog_schema(found.schema)))


def ordered_events(events: "ibis.Table", rows: "ibis.Table | None", units_per_second: int) -> "ibis.Table":
    """Give `row` and `timestamp` (seconds) of every event, user by user, by time, then by position in the log."""
    events = events.mutate(row=events.item) if rows is None else events.join(rows, "item")
    events = events.mutate(timestamp=whole_seconds(events.time, units_per_second)).order_by(
        "user", "time", "file_order"
    )
    return events.select("row", "timestamp")


def _encode(engine: Any, log: Log, arguments: InteractionsArguments) -> tuple[EncodedLog, list[dict[str, Any]]]:
    """Encode the rows that count, and say how many users, items and interactions there were at each step."""
    conditions = [*arguments.where]
    if arguments.rating_threshold is not None:
        conditions.append(f"rating >= {arguments.rating_threshold:g}")
    steps = []
    if conditions:
        steps.append(_step("the log", log.events, "user_id", "item_id"))
    encoded = encode(engine, select_rows(log.events, arguments))
    if not encoded.n_interactions:
        raise ValueError(f"no interactions are left: none has {' and '.join(conditions)}.")
    counts = {
        "n_users": encoded.n_users,
        "n_items": encoded.n_items,
        "n_interactions": encoded.n_interactions,
    }
    return encoded, [*steps, {"name": ", ".join(conditions) or "the log"} | counts]


def _step(name: str, events: "ibis.Table", user: str = "user", item: str = "item") -> dict[str, Any]:
    counts = events.agg(n_users=events[user].nunique(), n_items=events[item].nunique(), n_interactions=events.count())
    return {"name": name} | counts.to_pyarrow().to_pylist()[0]


def _catalog_schema(schema: pa.Schema) -> pa.Schema:
    """Engines differ in the width of integers and strings, catalogs do not."""
    types = {"row": pa.int32(), "count": pa.int64()}
    return pa.schema({name: types.get(name, pa.string()) for name in schema.names})


def _item_file(raw: RawFile, arguments: InteractionsArguments) -> RawFile | None:
    """Find the file about the items: RecBole puts what is known about those of `x.inter` into `x.item`."""
    if arguments.items is not None:
        return RawFile.open(arguments.items)
    if not raw.paths:
        return None
    beside = raw.paths[0].with_suffix(".item")
    return RawFile.open(beside) if raw.paths[0].suffix.lower() == ".inter" and beside.is_file() else None


def _options(arguments: InteractionsArguments) -> dict[str, Any]:
    """Return the arguments that shape the data, without paths of this machine."""
    options = dataclasses.asdict(arguments)
    return {name: value for name, value in options.items() if value not in (None, []) and name != "items"}
