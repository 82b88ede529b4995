"""Files of records: what columns they have, and where a record stands in them. Engines read them (`engines`)."""

import csv
import gzip
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

_DELIMITERS = {".inter": "\t", ".item": "\t", ".tsv": "\t", ".csv": ","}
# Their header carries types (`user_id:token`), and a quote in them is a character like any other.
_ATOMIC = {".inter", ".item"}
_JSON_LINES = {".jsonl", ".ndjson"}
ENDINGS = (*_DELIMITERS, *_JSON_LINES, ".parquet")

# JSON lines have no header: the keys of this many records are the columns.
_JSON_SAMPLE = 1000


@dataclass(frozen=True)
class RawFile:
    r"""
    One table of records in one or several files of the same form, not read yet. Records stand in the order of `paths`.

    Args:
        paths (`tuple[Path]`): Where they are. Text may be compressed (`.gz`).
        columns (`list[str]`): Names of the columns (without the types of an atomic file), in order.
        format (`"delimited"`, `"json"` or `"parquet"`): What the files hold.
        delimiter (`str`): What stands between two fields; up to four characters.
        quote (`str`): What encloses a field with a delimiter in it; `""` if a quote is a character like any other.
        header (`bool`): Whether the first line of each file names the columns.
        encoding (`str`): `"utf-8"` or `"latin-1"`.

    Example:

    ```python
    >>> RawFile.open("ml-1m.inter").columns
    ['user_id', 'item_id', 'rating', 'timestamp']
    >>> RawFile.delimited("ratings.dat", ["user", "item", "rating", "timestamp"], delimiter="::", quote="")
    ```
    """

    paths: tuple[Path, ...]
    columns: list[str]
    format: Literal["delimited", "json", "parquet"]
    delimiter: str = ","
    quote: str = '"'
    header: bool = True
    encoding: str = "utf-8"

    @classmethod
    def open(cls, paths: str | Path | Sequence[str | Path]) -> "RawFile":
        """
        Look at the ending and header of a file, or of several files with the same columns.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if an ending is unknown, a file is empty or not what its ending says, or files differ.
        """
        found = _existing(paths)
        endings = {_ending(path) for path in found}
        for path in found:
            if _ending(path) not in ENDINGS:
                raise ValueError(
                    f"`path` must end in one of {', '.join(ENDINGS)} (text also with .gz), got {path.name}. Rename "
                    "the file to what it holds."
                )
        if len(endings) > 1:
            raise ValueError(f"files that are read together must have one ending, got {', '.join(sorted(endings))}.")
        (ending,) = endings
        if ending == ".parquet":
            return cls._with_columns_of_files(found, None, "parquet")
        if ending in _JSON_LINES:
            return cls._with_columns_of_files(found, None, "json")
        quote = "" if ending in _ATOMIC else '"'
        return cls._with_columns_of_files(found, None, "delimited", delimiter=_DELIMITERS[ending], quote=quote)

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
        """Describe files with a JSON object on each line, whatever their ending; `columns` are the keys wanted."""
        return cls._with_columns_of_files(_existing(paths), columns, "json")

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
        for path, names in headers.items():
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                raise ValueError(f"{path} must name each column once, found {', '.join(repeated)} more than once.")
            if names != headers[paths[0]] and first.format != "json":
                raise ValueError(
                    f"files that are read together must have the same columns; {paths[0].name} has "
                    f"{', '.join(headers[paths[0]])}, {path.name} has {', '.join(names)}."
                )
        merged = list(dict.fromkeys(itertools.chain.from_iterable(headers.values())))
        return cls(paths, merged, format, header=columns is None, **form)

    @property
    def name(self) -> str:
        """What to call it: the file's name, and how many more there are."""
        more = f" and {len(self.paths) - 1} more" if len(self.paths) > 1 else ""
        return self.paths[0].name + more

    @property
    def stem(self) -> str:
        """The first file's name without its endings."""
        return self.paths[0].name.split(".")[0]

    def place(self, row: int) -> str:
        """Say where a row (from 0, all files together) stands: "log.csv, line 3", in Parquet "log.parquet, row 2"."""
        for path in self.paths:
            if self.format == "parquet":
                import pyarrow.parquet as pq

                n_rows = pq.read_metadata(path).num_rows
                if row < n_rows:
                    return f"{path}, row {row + 1}"
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
        if path.stat().st_size == 0:
            raise ValueError(f"{path} is empty: it has not even a header.")
        if self.format == "parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            try:
                return pq.read_schema(path).names
            except pa.ArrowException as error:
                raise ValueError(f"{path} is not a readable Parquet file ({error}).") from error
        try:
            with self._text(path) as file:
                if self.format == "json":
                    return _json_keys(path, file)
                if len(self.delimiter) > 1:
                    return next(file, "").rstrip("\r\n").split(self.delimiter)
                header: list[str] = next(self._csv_reader(file), [])
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} must be UTF-8 text: {error}.") from error
        except (EOFError, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} is not a whole .gz file: {error}. Fetch it again.") from error
        return [name.split(":")[0] for name in header] if _ending(path) in _ATOMIC else header

    def _text(self, path: Path) -> Any:
        encoding = "utf-8-sig" if self.encoding == "utf-8" else self.encoding
        if path.suffix.lower() == ".gz":
            return gzip.open(path, "rt", encoding=encoding, newline="")
        return path.open(encoding=encoding, newline="")

    def _csv_reader(self, file: Any) -> Any:
        if self.quote:
            return csv.reader(file, delimiter=self.delimiter, quotechar=self.quote)
        return csv.reader(file, delimiter=self.delimiter, quoting=csv.QUOTE_NONE)


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
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
        if suffixes and suffixes[-1] == ".parquet":
            return ".parquet.gz"
    return suffixes[-1] if suffixes else ""


def _json_keys(path: Path, file: Any) -> list[str]:
    keys: dict[str, None] = {}
    for number, line in enumerate(itertools.islice(file, _JSON_SAMPLE), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} must hold a JSON object on each line; line {number}: {error}.") from error
        if not isinstance(record, dict):
            raise ValueError(f"{path} must hold a JSON object on each line; line {number} is {line.strip()[:80]!r}.")
        keys |= dict.fromkeys(record)
    return list(keys)
