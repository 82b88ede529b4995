"""Build a dataset folder from a log of interactions."""

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from .catalog import Catalog
from .dataset_folder import check_replaceable, write_dataset_folder
from .interactions import (
    InteractionsArguments,
    connect,
    drop_repeats,
    k_core,
    materialize,
    read_interactions,
    read_items,
)

if TYPE_CHECKING:
    import ibis

# Users of one row group: what a reader that streams the file holds at a time.
_USERS_PER_ROW_GROUP = 20_000


def build_dataset(
    raw: str | Path,
    output: str | Path,
    arguments: InteractionsArguments | None = None,
    fingerprint: str | None = None,
    progress: bool = False,
) -> Path:
    r"""
    Turn a log of interactions into a dataset folder and return its path.

    Users stand in the order in which the log first names them, a user's events by timestamp, then by position in the
    log. Catalog rows go by popularity, equal counts by raw id.

    Args:
        raw (`str`): A `.inter`, `.csv`, `.tsv`, `.jsonl` or `.parquet` file.
        output (`str`): The folder. May not exist, be empty, or hold an earlier dataset, which is replaced.
        arguments (`InteractionsArguments`, *optional*): Columns and filters.
        fingerprint (`str`, *optional*): Noted in `statistics.json`, to recognise what was built from what.
        progress (`bool`, *optional*, defaults to `False`): Whether to show a progress bar.

    Raises:
        ImportError: if Ibis or DuckDB is not installed.
        FileNotFoundError: if there is no such log.
        FileExistsError: if `output` holds something else.
        ValueError: if the log is malformed (the message names the line) or the filters leave nothing.

    Example:

    ```python
    >>> build_dataset("ml-1m.inter", "data/ml-1m", InteractionsArguments(min_user_events=5, min_item_events=5))
    ```
    """
    raw, arguments = Path(raw), arguments or InteractionsArguments()
    items = Path(arguments.items) if arguments.items else _item_file_beside(raw)
    if arguments.title_column is not None and items is None:
        raise ValueError("`title_column` must come with `items`, the file that has this column.")
    check_replaceable(output)
    with tempfile.TemporaryDirectory(prefix="hf-seqrec-") as spill, tqdm(total=4, disable=not progress) as bar:
        con = connect(spill)
        try:
            bar.set_description(f"Reading {raw.name}")
            log = read_interactions(con, raw, arguments)
            before = _counts(log)
            bar.update()

            bar.set_description("Filtering")
            events = drop_repeats(log, arguments.repeats)
            events = k_core(con, events, arguments.min_user_events, arguments.min_item_events)
            bar.update()

            bar.set_description("Catalog")
            rows = number_items(con, events, read_items(con, items, arguments) if items else None)
            catalog = Catalog(rows.order_by("row").to_pyarrow())
            bar.update()

            bar.set_description("Sequences")
            statistics: dict[str, Any] = {
                "source": {"name": raw.name} | _options(arguments),
                "fingerprint": fingerprint,
                "before_filters": before,
            }
            if "title" in catalog.table.column_names:
                statistics["n_items_without_title"] = catalog.table["title"].null_count

            def write_sequences(folder: Path) -> None:
                path = folder / "part-00000.parquet"
                con.to_parquet(collect_sequences(events, rows), path, row_group_size=_USERS_PER_ROW_GROUP)

            description = _description(raw.name, before, arguments)
            write_dataset_folder(output, catalog, write_sequences, statistics, raw.stem, description)
            bar.update()
        finally:
            con.disconnect()
    return Path(output)


def collect_sequences(events: "ibis.Table", catalog: "ibis.Table") -> "ibis.Table":
    """
    Give one row per user: `user_id`, `item_ids` (catalog rows, oldest first) and `timestamps`.

    Events are collected as structs that begin with what they are sorted by: not every engine keeps the order of rows
    in an aggregate.
    """
    import ibis

    joined = events.join(catalog, "item_id")
    event = ibis.struct({"timestamp": joined.timestamp, "file_order": joined.file_order, "row": joined.row})
    users = joined.group_by("user_id").agg(first=joined.file_order.min(), events=event.collect())
    users = users.mutate(events=users.events.sort()).order_by("first")
    return users.select(
        "user_id",
        item_ids=users.events.map(lambda event: event["row"].cast("int32")),
        timestamps=users.events.map(lambda event: event["timestamp"]),
    )


def number_items(con: Any, events: "ibis.Table", items: "ibis.Table | None" = None) -> "ibis.Table":
    """Make the catalog's table: items numbered from 1 by popularity, then by raw id, and what is known of them."""
    import ibis

    counts = events.group_by("item_id").agg(count=events.count())
    by_popularity = ibis.row_number().over(order_by=[ibis.desc("count"), ibis.asc("item_id")])
    table = counts.mutate(row=(by_popularity + 1).cast("int32")).select("row", "item_id", "count")
    if items is not None:
        table = table.left_join(items, "item_id").drop("item_id_right")
    return materialize(con, "catalog", table)


def _counts(events: "ibis.Table") -> dict[str, int]:
    counts = events.agg(
        n_users=events.user_id.nunique(), n_items=events.item_id.nunique(), n_interactions=events.count()
    )
    return counts.to_pyarrow().to_pylist()[0]


def _item_file_beside(raw: Path) -> Path | None:
    """RecBole puts what is known about the items of `x.inter` into `x.item`."""
    items = raw.with_suffix(".item")
    return items if raw.suffix.lower() == ".inter" and items.is_file() else None


def _options(arguments: InteractionsArguments) -> dict[str, Any]:
    """Return the arguments that shape the data, without paths of this machine."""
    options = dataclasses.asdict(arguments)
    return {name: value for name, value in options.items() if value is not None and name != "items"}


def _description(name: str, before: dict[str, int], arguments: InteractionsArguments) -> str:
    options = ", ".join(f"`{key}={value}`" for key, value in _options(arguments).items())
    return f"""Histories for sequential recommendation, built from `{name}` by hf_seqrec with {options}.

The log has {before["n_users"]:,} users, {before["n_items"]:,} items and {before["n_interactions"]:,} interactions
before filtering; what remains is below."""
