"""
The one rule for raw ids, whatever file they come from.

An id is an integer or text. A whole number that some tool made a float (`10.0`) is that integer, in text too: pandas
writes integers so when a row of the column is empty. What is missing (null, NaN) is no id. Lists and objects are none.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ibis


def raw_ids(column: Any) -> Any:
    r"""
    Give a column as raw ids, null where there is none: integers stay integers, everything else becomes text.

    Args:
        column (`ibis.Value`): A column of scalars, see [`is_scalar`].
    """
    import ibis

    kind = column.type()
    if kind.is_integer():
        return column
    if kind.is_string():
        is_whole = column.re_search(r"^(0|-?[1-9][0-9]*)\.0$")
        written = is_whole.ifelse(column.substr(0, column.length() - 2), column)
        # Few ids end like this, and only these are held against the pattern.
        return ibis.cases((column.endswith(".0"), written), else_=column)
    if kind.is_floating():
        number = without_nan(column)
        whole = number.try_cast("int64")
        text = (whole.cast("float64") == number).ifelse(whole.cast("string"), number.cast("string"))
        # Beyond 64 bits (infinity too) a float stands for many integers at once.
        return whole.isnull().ifelse(ibis.null("string"), text)
    if kind.is_decimal():
        text = column.cast("string")
        return text.re_replace(r"\.0+$", "") if kind.scale else text
    return column.cast("string")


def without_nan(column: Any) -> Any:
    """Give floats as float64, null where there is no number."""
    import ibis

    number = column.cast("float64")
    # Said explicitly: the statistics of a Parquet file leave NaN out, and DuckDB concludes that there is none.
    return number.isnan().ifelse(ibis.null("float64"), number)


def id_texts(column: Any) -> Any:
    """Give a column as raw ids, all of them text."""
    return raw_ids(column).cast("string")


def id_text(value: str) -> str:
    """
    Give text as it is compared with ids.

    ```python
    >>> id_text("10.0"), id_text("007")
    ('10', '007')
    ```
    """
    number = value.removesuffix(".0")
    is_whole = number != value and number.removeprefix("-").isdecimal() and str(int(number)) == number
    return number if is_whole else value


def is_scalar(kind: "ibis.DataType") -> bool:
    """Whether values of this type can be ids: numbers, text, dates; no lists, objects or bytes."""
    return bool(
        kind.is_integer() or kind.is_floating() or kind.is_decimal() or kind.is_string() or kind.is_boolean()
        or kind.is_date() or kind.is_timestamp() or kind.is_uuid() or is_empty(kind)
    )  # fmt: skip


def is_empty(kind: "ibis.DataType") -> bool:
    """Whether this is the type of a column without any value. DuckDB calls it `NULL`, which Ibis does not know."""
    return bool(kind.is_null() or (kind.is_unknown() and "NULL" in str(kind)))
