"""Conditions on columns such as `is_click=1`, whatever the type of the column."""

from typing import Any

from .raw_ids import id_text, id_texts

_BOOLEANS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}


def matches(label: str, name: str, column: Any, value: str) -> Any:
    r"""
    Where a column has a value, as an expression.

    Args:
        label (`str`): What to call the file in messages.
        name (`str`): The column's name.
        column (`ibis.Value`): The column.
        value (`str`): The value, as it was written: `1`, `1.0` and `true` are one, unless the column holds text.

    Raises:
        ValueError: if the column cannot have such a value.
    """
    kind = column.type()
    if kind.is_boolean():
        if value.lower() not in _BOOLEANS:
            raise ValueError(f"`where` must compare `{name}` of {label} with true or false, got {value!r}.")
        return column if _BOOLEANS[value.lower()] else ~column
    if kind.is_integer() or kind.is_floating() or kind.is_decimal():
        number = _number(value)
        if number is None:
            raise ValueError(f"`where` must compare `{name}` of {label} with a number, got {value!r}.")
        return column == number
    if not kind.is_string():
        return column.cast("string") == value
    same = id_texts(column) == id_text(value)
    # JSON writes true, Python True.
    return same | (column.lower() == value.lower()) if value.lower() in ("true", "false") else same


def _number(value: str) -> int | float | None:
    if value.lower() in ("true", "false"):
        return int(value.lower() == "true")
    try:
        return int(value)
    except ValueError:
        pass
    try:
        return float(value)
    except ValueError:
        return None
