"""Logs with a whole history in each row: a list of items, as RecBole's `token_seq` or a list of Parquet or JSON."""

from typing import TYPE_CHECKING, Any

from .log_files import RawFile
from .raw_ids import id_texts

if TYPE_CHECKING:
    import ibis


def list_of_items(raw: RawFile, item: str) -> str | None:
    """
    Return the column that holds lists of items, if there is one.

    It is the column of items itself, or one beside it that ends in `_list`: the items before that of the row.
    """
    return next((name for name in (item, f"{item}_list") if name in raw.lists), None)


def one_event_per_item(
    engine: Any, raw: RawFile, rows: "ibis.Table", names: dict[str, str]
) -> "tuple[ibis.Table, int]":
    r"""
    Give an event for each item of each row, and how far the `file_order` of two rows is apart.

    Args:
        engine: Where to compute it.
        raw (`RawFile`): Where the rows are.
        rows (`ibis.Table`): `user_id`, `item_id` and what else the log has; `item_list` where the list stands beside
            the item. Times may be lists too, as long as those of the items.
        names (`dict[str, str]`): What each column is called in the file.

    Raises:
        ValueError: if a user has more than one row, or lists of a row differ in length.
    """
    import ibis

    # Rows that repeat a history as it grows would count its events again and again.
    _check_one_row_per_user(raw, rows)
    items = _as_list(rows.item_id)
    if "item_list" in names:
        items = _as_list(rows.item_list).concat(ibis.array([id_texts(rows.item_id)]))
    rows = rows.mutate(items=items)
    times_are_lists = names["written"] in raw.lists
    if times_are_lists:
        rows = rows.mutate(written=_as_list(rows.written))
        _check_lengths(raw, rows, names)
    longest = rows.agg(n=rows["items"].length().max()).to_pyarrow()["n"][0].as_py() or 0
    step = longest + 1
    events = rows.unnest("items", offset="position", keep_empty=True)
    columns = {name: events[name] for name in rows.columns if name not in ("items", "item_list")}
    columns["item_id"] = events["items"]
    columns["file_order"] = events.file_order * step + events.position.fill_null(0)
    if times_are_lists:
        columns["written"] = events.written[events.position]
    return engine.materialize("events", events.select(**columns)), step


def _as_list(column: Any) -> Any:
    """Give lists of raw ids; atomic files write a list as text with spaces."""
    if column.type().is_array():
        return column.map(id_texts)
    return column.strip().nullif("").re_replace(" +", " ").split(" ")


def _check_one_row_per_user(raw: RawFile, rows: "ibis.Table") -> None:
    import ibis

    nth = ibis.row_number().over(group_by="user_id", order_by="file_order")
    again = rows.filter(rows.user_id.notnull()).mutate(nth=nth).filter(lambda t: t.nth == 1)
    found = again.order_by("file_order").limit(1).select("user_id", "file_order").to_pyarrow().to_pylist()
    if found:
        raise ValueError(
            f"{_place(raw, rows, found[0]['file_order'])}: user {str(found[0]['user_id'])!r} has another row before "
            "it, but where a row holds a list of items, it must be the user's whole history. Pass a log with one "
            "event in each row."
        )


def _check_lengths(raw: RawFile, rows: "ibis.Table", names: dict[str, str]) -> None:
    differ = rows.filter(rows.written.length() != rows["items"].length())
    first = differ.agg(first=differ.file_order.min()).to_pyarrow()["first"][0].as_py()
    if first is not None:
        raise ValueError(
            f"{_place(raw, rows, first)}: `{names['written']}` must have as many times as there are items, found "
            "another number. Correct the row."
        )


def _place(raw: RawFile, rows: "ibis.Table", file_order: int) -> str:
    return raw.place(rows.filter(rows.file_order < file_order).count().to_pyarrow().as_py())
