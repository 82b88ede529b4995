"""Which columns of a log hold users, items, times and ratings, and what columns of several files have in common."""

from typing import TYPE_CHECKING, Any

from .log_files import RawFile
from .raw_ids import id_texts, is_scalar

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


def choose_column(raw: RawFile, option: str, wanted: str | None, common: tuple[str, ...]) -> str:
    """
    Return the column that an option names, or the first of the common names that there is.

    Raises:
        ValueError: if there is none, or several differ from the name in case only.
    """
    found = find_column(raw, (wanted,) if wanted is not None else common, option)
    if found is not None:
        return found
    shown = ", ".join(raw.columns) or "none"
    if wanted is not None:
        raise ValueError(f"`{option}` must be a column of {raw.label}, got {wanted!r}; it has {shown}.")
    raise ValueError(
        f"{raw.label} must have a column such as {', '.join(common[:3])}; it has {shown}. Name the right one with "
        f"`{option}`."
    )


def find_column(raw: RawFile, names: tuple[str, ...], option: str) -> str | None:
    """
    Return the first of these columns that there is, whatever its case; the same case wins.

    Raises:
        ValueError: if several columns differ from a name in case only.
    """
    for name in names:
        if name in raw.columns:
            return name
        alike = [column for column in raw.columns if column.lower() == name.lower()]
        if len(alike) > 1:
            raise ValueError(
                f"{raw.label} has the columns `{'`, `'.join(alike)}`, which differ in case only. Name the right one "
                f"with `{option}`."
            )
        if alike:
            return alike[0]
    return None


def check_nesting(raw: RawFile, column: str, option: str, lists_too: bool = True) -> None:
    """
    Do nothing where a column holds one value in each row.

    Raises:
        ValueError: if it holds objects, or lists (unless those are welcome).
    """
    if column in raw.nested:
        place, what = raw.nested[column], "objects or nested lists"
    elif lists_too and column in raw.lists:
        place, what = raw.label, "lists"
    else:
        return
    raise ValueError(
        f"{place}: `{column}` must hold one value in each row, found {what}. Write the value into a column of its "
        f"own and name that with `{option}`."
    )


def check_type(raw: RawFile, column: str, values: Any, option: str, is_right: Any = is_scalar) -> None:
    """
    Do nothing where values are of a type that can be used.

    Raises:
        ValueError: if not.
    """
    kind = values.type()
    if not is_right(kind):
        found = "another type" if kind.is_unknown() else str(kind)
        raise ValueError(
            f"{raw.label}: `{column}` must hold {_EXPECTED[option]}, found {found}. Convert it, or name another "
            f"column with `{option}`."
        )


_EXPECTED = {
    "user_column": "numbers or text",
    "item_column": "numbers or text",
    "timestamp_column": "times: numbers, dates or text",
    "rating_column": "numbers",
    "where": "numbers, text or booleans",
}


def with_common_types(tables: "dict[str, ibis.Table]", names: dict[str, str]) -> "list[ibis.Table]":
    """
    Give each column one type in all tables: files of one log may hold integers here and floats there.

    Args:
        tables (`dict[str, ibis.Table]`): A table of each file.
        names (`dict[str, str]`): What the columns are called in the files.

    Raises:
        ValueError: if a column has types that have nothing in common; the message names two files.
    """
    changed = list(tables.values())
    for name in changed[0].columns:
        kinds = {label: table[name].type().copy(nullable=True) for label, table in tables.items()}
        if len(set(kinds.values())) > 1:
            convert = _common(names.get(name, name), kinds)
            changed = [table.mutate(**{name: convert(table[name])}) for table in changed]
    return changed


def _common(name: str, kinds: "dict[str, ibis.DataType]") -> Any:
    """Return how to convert a column of these types, by file, to what they have in common."""
    found = list(kinds.values())
    if all(kind.is_signed_integer() for kind in found):
        return lambda column: column.cast("int64")
    if all(kind.is_floating() for kind in found):
        return lambda column: column.cast("float64")
    if all(kind.is_array() for kind in found):
        return lambda column: column.map(id_texts)
    moments = [kind for kind in found if kind.is_date() or kind.is_timestamp()]
    if len(moments) == len(found) and len({getattr(kind, "timezone", None) is None for kind in found}) == 1:
        finest = max((kind for kind in found if kind.is_timestamp()), key=lambda kind: kind.scale or 6)
        return lambda column: column.cast(finest)
    if not moments and all(is_scalar(kind) for kind in found):
        return id_texts
    first = next(iter(kinds))
    other = next(label for label, kind in kinds.items() if kind != kinds[first])
    raise ValueError(
        f"files that are read together must have the same kind of values; `{name}` is {kinds[first]} in {first} and "
        f"{kinds[other]} in {other}. Convert one of them."
    )
