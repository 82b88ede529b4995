"""Files of records: what columns they have, and where a record stands in them. Engines read them (`engines`)."""

import csv
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

from .json_records import JsonSample, sample_records
from .text_files import COMPRESSIONS, DAMAGED, compression, damaged, open_text

if TYPE_CHECKING:
    import pyarrow as pa

_DELIMITERS = {".inter": "\t", ".item": "\t", ".tsv": "\t", ".csv": ","}
# Their header carries types (`user_id:token`), and a quote in them is a character like any other.
_ATOMIC = {".inter", ".item"}
_JSON = {".jsonl", ".ndjson", ".json"}
ENDINGS = (*_DELIMITERS, *_JSON, ".parquet")
# What may stand between the fields of a .csv or .tsv file, the likeliest first.
_SNIFFED = ",;\t|"
# A folder of a partitioned table: `date=2024-01-01`.
_PARTITION = re.compile(r"([^=]+)=(.*)")
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
_SEQUENCES = {"token_seq", "float_seq"}


@dataclass(frozen=True)
class RawFile:
    r"""
    One table of records in one or several files of the same form, not read yet. Records stand in the order of `paths`.

    Args:
        paths (`tuple[Path]`): Where they are. Text may be compressed (`.gz`, `.bz2`, `.xz`, `.zst`).
        columns (`list[str]`): Names of the columns (without the types of an atomic file), in order.
        format (`"delimited"`, `"json"`, `"parquet"` or `"table"`): What the files hold; a `"table"` is in no file.
        delimiter (`str`): What stands between two fields; up to four characters.
        quote (`str`): What encloses a field with a delimiter in it; `""` if a quote is a character like any other.
        header (`bool`): Whether the first line of each file names the columns.
        encoding (`str`): `"utf-8"` or `"latin-1"`.
        is_array (`bool`): Whether a JSON file is one array of records, instead of a record on each line.
        lists (`frozenset[str]`): Columns that hold a list in every record.
        nested (`dict[str, str]`): Columns that hold objects, and where the first is.
        partitions (`tuple[str, ...]`):
            The last of the columns: those that stand in the names of folders (`date=2024-01-01`) and in no file.
        table (`pyarrow.Table`, *optional*): The records themselves, where they are in no file.

    Example:

    ```python
    >>> RawFile.open("ml-1m.inter").columns
    ['user_id', 'item_id', 'rating', 'timestamp']
    >>> RawFile.delimited("ratings.dat", ["user", "item", "rating", "timestamp"], delimiter="::", quote="")
    ```
    """

    paths: tuple[Path, ...]
    columns: list[str]
    format: Literal["delimited", "json", "parquet", "table"]
    delimiter: str = ","
    quote: str = '"'
    header: bool = True
    encoding: str = "utf-8"
    is_array: bool = False
    lists: frozenset[str] = frozenset()
    nested: dict[str, str] = field(default_factory=dict)
    partitions: tuple[str, ...] = ()
    table: "pa.Table | None" = None

    @classmethod
    def open(cls, paths: Any) -> "RawFile":
        """
        Look at the ending and header of a file, or of several files with the same columns, or take a table.

        Args:
            paths (`str`, a list of them, or a table):
                Files, or a table of pandas, Arrow or Polars (anything with `__arrow_c_stream__`).

        Raises:
            FileNotFoundError: if there is no such file.
            TypeError: if it is neither files nor a table.
            ValueError: if an ending is unknown, a file is empty or not what its ending says, or files differ.
        """
        if isinstance(paths, RawFile):
            return paths
        if not isinstance(paths, str | Path | Sequence):
            return cls._from_table(paths)
        found = _existing(paths)
        endings = {_ending(path) for path in found}
        for path in found:
            if _ending(path) not in ENDINGS:
                raise ValueError(
                    f"`path` must end in one of {', '.join(ENDINGS)} (text also with {', '.join(COMPRESSIONS)}), got "
                    f"{path.name}. Rename the file to what it holds."
                )
        if len(endings) > 1:
            raise ValueError(f"files that are read together must have one ending, got {', '.join(sorted(endings))}.")
        (ending,) = endings
        if ending == ".parquet":
            return cls._with_columns_of_files(found, None, "parquet")
        if ending in _JSON:
            return cls.json_lines(found)
        quote = "" if ending in _ATOMIC else '"'
        delimiter = _DELIMITERS[ending] if ending in _ATOMIC else _sniff_delimiter(found[0], _DELIMITERS[ending])
        return cls._with_columns_of_files(found, None, "delimited", delimiter=delimiter, quote=quote)

    @classmethod
    def delimited(
        cls,
        paths: str | Path | Sequence[str | Path],
        columns: list[str] | None = None,
        delimiter: str = "\t",
        quote: str = '"',
        encoding: str = "utf-8",
    ) -> "RawFile":
        """
        Describe text whose form is known, whatever its ending; with `columns` the files have no header.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if a file is empty, or the files differ.
        """
        form = {"delimiter": delimiter, "quote": quote, "encoding": encoding}
        return cls._with_columns_of_files(_existing(paths), columns, "delimited", **form)

    @classmethod
    def json_lines(cls, paths: str | Path | Sequence[str | Path], columns: list[str] | None = None) -> "RawFile":
        """
        Describe files with a JSON object on each line, or with one array of objects, whatever their ending.

        Args:
            paths (`str` or a list of them): The files.
            columns (`list[str]`, *optional*): The keys that are wanted.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if a file is empty, or one of its first records is no JSON object.
        """
        found = _existing(paths)
        samples = [sample_records(path) for path in found]
        if len({sample.is_array for sample in samples}) > 1:
            raise ValueError(
                "files that are read together must have one form; of "
                f"{', '.join(path.name for path in found)} some are JSON arrays, some have an object on each line."
            )
        keys = list(dict.fromkeys(itertools.chain.from_iterable(sample.keys for sample in samples)))
        lists, nested = JsonSample.nesting(samples)
        form = {"is_array": samples[0].is_array, "lists": lists, "nested": nested}
        return cls._with_columns_of_files(found, keys if columns is None else columns, "json", **form)

    @classmethod
    def _from_table(cls, table: Any) -> "RawFile":
        import pyarrow as pa

        if not hasattr(table, "__arrow_c_stream__"):
            way_out = " Call its `collect()` first." if hasattr(table, "collect") else ""
            raise TypeError(
                "`raw` must be a file, several files, or a table of pandas, Arrow or Polars, got "
                f"{type(table).__name__}.{way_out}"
            )
        try:
            records = pa.table(table)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise ValueError(
                "`raw` must be a table whose columns each hold values of one type; "
                f"{_mixed_columns(table) or 'one of them'} does not. Convert it, such as with `.astype(str)`."
            ) from error
        names = records.column_names
        described = cls((), names, "table")
        _check_repeated(described.label, names)
        lists, nested = _arrow_nesting(records.schema, described.label)
        return cls((), names, "table", lists=lists, nested=nested, table=records)

    @classmethod
    def _with_columns_of_files(
        cls,
        paths: tuple[Path, ...],
        columns: list[str] | None,
        format: Literal["delimited", "json", "parquet"],
        **form: Any,
    ) -> "RawFile":
        first = cls(paths, [], format, header=columns is None, **form)
        headers = {path: first._columns(path) for path in paths} if columns is None else {paths[0]: columns}
        names = headers[paths[0]]
        for path, found in headers.items():
            _check_repeated(str(path), found)
            if found != names:
                raise ValueError(
                    f"files that are read together must have the same columns; {paths[0].name} has "
                    f"{', '.join(names)}, {path.name} has {', '.join(found)}."
                )
        if format == "parquet":
            form["lists"], form["nested"] = _parquet_nesting(paths)
        elif format == "delimited" and columns is None and _ending(paths[0]) in _ATOMIC:
            form["lists"] = frozenset(first._typed_lists(paths[0]))
        everywhere = set.intersection(*(set(partition_values(path)) for path in paths))
        partitions = tuple(key for key in partition_values(paths[0]) if key in everywhere and key not in names)
        return cls(paths, [*names, *partitions], format, header=columns is None, partitions=partitions, **form)

    @property
    def own_columns(self) -> list[str]:
        """The columns that stand in the files themselves."""
        return self.columns[: len(self.columns) - len(self.partitions)]

    @property
    def label(self) -> str:
        """What to call it where the way to it matters: the first file's path."""
        return str(self.paths[0]) if self.paths else "the table"

    @property
    def name(self) -> str:
        """What to call it: the file's name, and how many more there are."""
        if not self.paths:
            return "a table"
        more = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        return self.paths[0].name + more

    @property
    def stem(self) -> str:
        """The first file's name without its endings."""
        return self.paths[0].name.split(".")[0] if self.paths else "table"

    def place(self, row: int) -> str:
        """Say where a row (from 0, all files together) stands: "log.csv, line 3", in Parquet "log.parquet, row 2"."""
        if not self.paths:
            return f"{self.label}, row {row + 1}"
        for path in self.paths:
            if self.format == "parquet":
                import pyarrow.parquet as pq

                n_rows = pq.read_metadata(path).num_rows
                if row < n_rows:
                    return f"{path}, row {row + 1}"
            elif self.is_array:
                n_rows = sample_records(path, limit=None).n
                if row < n_rows:
                    return f"{path}, record {row + 1}"
            else:
                n_rows = 0
                for line in self._lines(path):
                    if n_rows == row:
                        return f"{path}, line {line}"
                    n_rows += 1
            row -= n_rows
        raise IndexError(row)

    def _lines(self, path: Path) -> Iterator[int]:
        """First line of each record. Records may span lines and blank lines are no records, so this reads the file."""
        with self._text(path) as file:
            if self.format == "json":
                yield from (number for number, line in enumerate(file, start=1) if line.strip())
                return
            if len(self.delimiter) > 1 or not self.quote:
                lines = enumerate(file, start=1)
                yield from (number for number, line in itertools.islice(lines, int(self.header), None) if line.strip())
                return
            reader = self._csv_reader(file)
            if self.header:
                next(reader)
            while True:
                line = reader.line_num + 1
                record = next(reader, None)
                if record is None:
                    return
                if record:
                    yield line

    def _columns(self, path: Path) -> list[str]:
        if self.format == "parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            try:
                return list(pq.read_schema(path).names)
            except pa.ArrowException as error:
                raise ValueError(f"{path} is not a readable Parquet file ({error}).") from error
        header = [name.strip() for name in self._header(path)]
        if not any(header):
            raise ValueError(f"{path} is empty: it has not even a header.")
        if _ending(path) in _ATOMIC:
            header = [name.split(":")[0] for name in header]
        # Such as the index that pandas writes; this is what pandas calls it.
        return [name or f"Unnamed: {number}" for number, name in enumerate(header)]

    def _header(self, path: Path) -> list[str]:
        try:
            with self._text(path) as file:
                if len(self.delimiter) > 1:
                    header = str(next(file, "")).rstrip("\r\n").split(self.delimiter)
                else:
                    header = next(self._csv_reader(file), [])
            "".join(header).encode()
            return header
        except UnicodeEncodeError as error:
            raise ValueError(f"{path} must be UTF-8 text; its first line is not. Convert it to UTF-8.") from error
        except DAMAGED as error:
            if not compression(path):
                raise
            raise damaged(path) from error

    def _typed_lists(self, path: Path) -> Iterator[str]:
        """Columns of an atomic file that are sequences by their type."""
        for name in self._header(path):
            column, _, kind = name.strip().partition(":")
            if kind in _SEQUENCES:
                yield column

    def _text(self, path: Path) -> Any:
        # Rows that are no text are counted by the engine, and left out if that is wanted.
        return open_text(path, self.encoding, errors="surrogateescape")

    def _csv_reader(self, file: Any) -> Any:
        if self.quote:
            return csv.reader(file, delimiter=self.delimiter, quotechar=self.quote)
        return csv.reader(file, delimiter=self.delimiter, quoting=csv.QUOTE_NONE)


def partition_values(path: Path) -> dict[str, str | None]:
    """
    Columns that stand in the names of a file's folders, and their values.

    ```python
    >>> partition_values(Path("logs/date=2024-01-01/part-0.parquet"))
    {'date': '2024-01-01'}
    ```
    """
    found = [match for part in path.parts[:-1] if (match := _PARTITION.fullmatch(part))]
    return {unquote(match[1]): None if match[2] == _NO_VALUE else unquote(match[2]) for match in found}


def _existing(paths: str | Path | Sequence[str | Path]) -> tuple[Path, ...]:
    found = tuple(Path(path) for path in ([paths] if isinstance(paths, (str, Path)) else paths))
    if not found:
        raise ValueError("`path` must be a file of records, got an empty list.")
    for path in found:
        if not path.is_file():
            raise FileNotFoundError(f"`path` must be a file of records, there is none at {path}.")
        if path.stat().st_size == 0:
            raise ValueError(f"{path} is empty: it has not even a header.")
    return found


def _ending(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes.pop() if suffixes and suffixes[-1] in COMPRESSIONS else ""
    ending = suffixes[-1] if suffixes else ""
    # Parquet is compressed inside.
    return ending + packed if ending == ".parquet" else ending


def _sniff_delimiter(path: Path, usual: str) -> str:
    """What separates the names in the header: what the ending says, unless only another character does."""
    try:
        with open_text(path, "utf-8", errors="replace") as file:
            line = file.readline()
    except DAMAGED:
        # The header is read again, with a message that names the file.
        return usual
    fields = {delimiter: len(next(csv.reader([line], delimiter=delimiter), [])) for delimiter in _SNIFFED}
    return usual if fields[usual] > 1 else max(_SNIFFED, key=lambda delimiter: fields[delimiter])


def _check_repeated(label: str, names: list[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"{label} must name each column once, found {', '.join(repeated)} more than once.")


def _parquet_nesting(paths: tuple[Path, ...]) -> tuple[frozenset[str], dict[str, str]]:
    import pyarrow.parquet as pq

    found = [_arrow_nesting(pq.read_schema(path), str(path)) for path in paths]
    everywhere = frozenset.intersection(*(lists for lists, _ in found))
    nested: dict[str, str] = {}
    for path, (lists, objects) in zip(paths, found, strict=True):
        # A list in one file and something else in another is neither.
        nested = dict.fromkeys(lists - everywhere, str(path)) | objects | nested
    return everywhere, nested


def _arrow_nesting(schema: "pa.Schema", label: str) -> tuple[frozenset[str], dict[str, str]]:
    """Columns that hold lists of plain values, and those that hold anything else that is nested."""
    import pyarrow as pa

    lists, nested = set(), {}
    for column in schema:
        kind = column.type
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
        if is_list and not pa.types.is_nested(kind.value_type):
            lists.add(column.name)
        elif pa.types.is_nested(kind):
            nested[column.name] = label
    return frozenset(lists), nested


def _mixed_columns(table: Any) -> str:
    """Name the columns of a pandas table that Arrow cannot hold."""
    import pyarrow as pa

    wrong = []
    for name in getattr(table, "columns", []):
        try:
            pa.array(table[name], from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            wrong.append(f"`{name}`")
    return ", ".join(wrong)
