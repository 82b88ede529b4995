"""
Times as people write them: numbers of seconds or finer units since 1970, dates, dates with a time of day.

Every time becomes `whole` units and a `fraction` of one in billionths, so that nothing is rounded before events are
sorted. The unit of dates is the second. A date or time without a zone is UTC.
"""

from typing import Any, NamedTuple

from transformers.utils import logging

from .raw_ids import is_empty, without_nan

logger = logging.get_logger(__name__)

UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
NUMBER, DATE = 1, 2
EXPECTED = "a time (Unix seconds, or a date such as 2024-01-31 or 2024-01-31T12:00:00Z)"
# Seconds do not reach this until the year 5138; milliseconds passed it in 1973.
_TOO_LARGE_FOR_SECONDS = 10**11
# Nanoseconds in 64 bits reach from 1678 to 2262.
_NANOSECOND_YEARS = 9_200_000_000
_WHOLE = r"^[+-]?[0-9]+$"
_NUMBER = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_ISO = (
    r"^([0-9]{4}-[0-9]{2}-[0-9]{2})([T ]([0-9]{2}:[0-9]{2}(:[0-9]{2})?)([.,]([0-9]+))?"
    r" ?(Z|z|UTC|GMT|[+-][0-9]{2}(:?[0-9]{2})?)?)?$"
)


class ParsedTime(NamedTuple):
    """Expressions about a column of times. `whole` is null where there is no time."""

    whole: Any
    fraction: Any
    kind: Any
    has_zone: Any


class TimesFound(NamedTuple):
    """What was found in a column: the smallest and largest `whole`, and whether there are fractions."""

    n: int
    n_large: int
    smallest: int
    largest: int
    has_fractions: bool
    has_nanoseconds: bool
    is_date: bool


def is_time(kind: Any) -> bool:
    """Whether a column of this type can be times."""
    return bool(
        kind.is_integer() or kind.is_floating() or kind.is_decimal() or kind.is_string() or kind.is_date()
        or kind.is_timestamp() or is_empty(kind)
    )  # fmt: skip


def parse_times(written: Any) -> ParsedTime:
    """Read a column of integers, floats, decimals, text, dates or timestamps."""
    import ibis

    kind = written.type()
    none, number, date = ibis.literal(0, "int64"), ibis.literal(NUMBER, "int8"), ibis.literal(DATE, "int8")
    yes = ibis.literal(True)
    if kind.is_integer():
        return ParsedTime(written.try_cast("int64"), none, number, yes)
    if kind.is_floating() or (kind.is_decimal() and not kind.scale):
        return ParsedTime(*_of_float(without_nan(written)), number, yes)
    if kind.is_date():
        return ParsedTime(written.cast("timestamp").epoch_seconds().cast("int64"), none, date, ibis.literal(False))
    if kind.is_timestamp():
        return ParsedTime(*_of_timestamp(written), date, ibis.literal(kind.timezone is not None))
    return _of_text(written.cast("string").strip())


def exact_time(parsed_whole: Any, parsed_fraction: Any, found: TimesFound, unit: str | None) -> tuple[Any, str]:
    """Give int64 times in the coarsest unit that loses nothing, and that unit."""
    unit = "s" if found.is_date else unit or _unit_of_size(found)
    if not found.has_fractions or unit == "ns":
        return parsed_whole, unit
    fits = max(abs(found.smallest), abs(found.largest)) * 10**9 // UNITS[unit] < _NANOSECOND_YEARS * 10**9
    fine = "ns" if unit == "us" or (found.has_nanoseconds and found.is_date and fits) else "us"
    scale = UNITS[fine] // UNITS[unit]
    return parsed_whole * scale + _quotient(parsed_fraction, 10**9 // scale), fine


def whole_seconds(time: Any, units_per_second: int) -> Any:
    """Seconds of an int64 time, rounded down, exactly."""
    return time if units_per_second == 1 else _quotient(time, units_per_second)


def looks_mixed(found: TimesFound) -> bool:
    """Whether some numbers look like seconds and others like milliseconds."""
    return 0 < found.n_large < found.n


def is_large(whole: Any) -> Any:
    """Where a number looks like a finer unit than seconds."""
    return whole >= _TOO_LARGE_FOR_SECONDS


def note_missing_zones(place: str, column: str, n: int) -> None:
    """Say that times without a zone are taken for UTC."""
    if n:
        logger.warning(f"{place}: `{column}` has {n:,} times without a time zone. They are taken for UTC.")


def _unit_of_size(found: TimesFound) -> str:
    if not found.n_large:
        return "s"
    return "ms" if found.smallest < 10**14 else "us" if found.smallest < 10**17 else "ns"


def _of_float(number: Any) -> tuple[Any, Any]:
    nearest = number.try_cast("int64")
    whole = nearest - (nearest.cast("float64") > number).cast("int64")
    # A float holds microseconds of today's Unix seconds and little more.
    millionths = ((number - whole.cast("float64")) * 1e6).round().cast("int64")
    return whole, millionths * 1000


def _of_timestamp(written: Any) -> tuple[Any, Any]:
    import ibis
    import ibis.expr.datatypes as types

    if written.type().scale == 9:

        @ibis.udf.scalar.builtin(name="epoch_ns", signature=((types.Timestamp(scale=9),), types.int64))
        def epoch_ns(moment):  # type: ignore[no-untyped-def]
            ...

        nanoseconds = epoch_ns(written)
        fraction = _remainder(nanoseconds, 10**9)
        return _quotient(nanoseconds, 10**9), fraction
    whole = written.truncate("s").epoch_seconds().cast("int64")
    return whole, written.microsecond().cast("int64") * 1000


def _of_text(text: Any) -> ParsedTime:
    import ibis

    nothing = ibis.null("int64")
    is_whole, is_iso = text.re_search(_WHOLE), text.re_search(_ISO)
    number_text = text.re_search(_NUMBER).ifelse(text, ibis.null("string"))
    float_whole, float_fraction = _of_float(number_text.try_cast("float64"))
    # 978300760123000000.0 has more digits than a float.
    is_integer = text.re_search(r"^[+-]?[0-9]+\.0*$")
    integer = text.re_extract(r"^([+-]?[0-9]+)\.0*$", 1).try_cast("int64")
    seconds, date_fraction, has_zone = _of_iso(text)
    whole = ibis.cases(
        (is_whole, text.try_cast("int64")),
        (is_iso, seconds),
        (is_integer, integer),
        else_=float_whole,
    )
    fraction = ibis.cases(
        (is_whole, ibis.literal(0, "int64")),
        (is_iso, date_fraction),
        (is_integer, ibis.literal(0, "int64")),
        else_=float_fraction,
    )
    kind = ibis.cases(
        (is_whole, ibis.literal(NUMBER, "int8")),
        (is_iso, ibis.literal(DATE, "int8")),
        else_=ibis.literal(NUMBER, "int8"),
    )
    zone = ibis.cases((is_whole, ibis.literal(True)), (is_iso, has_zone), else_=ibis.literal(True))
    return ParsedTime(text.notnull().ifelse(whole, nothing), fraction, kind, zone)


def _of_iso(text: Any) -> tuple[Any, Any, Any]:
    """Seconds and billionths of a date in ISO 8601, and whether it has a zone."""
    import ibis

    def part(group: int) -> Any:
        return text.re_extract(_ISO, group)

    clock, zone = part(3), part(7)
    moment = (part(1) + " " + (clock == "").ifelse("00:00", clock)).try_cast("timestamp")
    hours, minutes = zone.substr(1, 2).try_cast("int64"), zone.right(2).try_cast("int64")
    is_offset = ibis.or_(zone.startswith("+"), zone.startswith("-"))
    seconds = hours * 3600 + (zone.length() > 3).ifelse(minutes * 60, 0)
    offset = is_offset.ifelse(zone.startswith("-").ifelse(-seconds, seconds), 0)
    digits = part(6)
    fraction = (digits == "").ifelse(0, digits.concat("000000000").substr(0, 9).try_cast("int64"))
    return moment.epoch_seconds().cast("int64") - offset, fraction.cast("int64"), zone != ""


def _remainder(number: Any, divisor: int) -> Any:
    """What is left of a division rounded down: never negative."""
    return ((number % divisor) + divisor) % divisor


def _quotient(number: Any, divisor: int) -> Any:
    """Divide int64 rounded down. Not `//`: Ibis divides as floats, which 19 digits do not fit into."""
    if divisor == 1:
        return number
    return ((number - _remainder(number, divisor)) / divisor).round().cast("int64")
