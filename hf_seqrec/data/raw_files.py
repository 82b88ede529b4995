"""Files of records as Ibis tables whose every column is as written: RecBole's atomic files, CSV, TSV, JSON."""

import csv
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ibis

_DELIMITERS = {".inter": "\t", ".item": "\t", ".tsv": "\t", ".csv": ","}
# Their header carries types (`user_id:token`), and a quote in them is a character like any other.
_ATOMIC = {".inter", ".item"}
_JSON_LINES = {".jsonl", ".ndjson"}
ENDINGS = (*_DELIMITERS, *_JSON_LINES, ".parquet")

# JSON lines have no header: the keys of this many records are the columns.
_JSON_SAMPLE = 1000


@dataclass(frozen=True)
class RawFile:
    """
    A file of records, not read yet.

    Fields:
        path: Where it is.
        columns: Names of its columns (without the types of an atomic file), in order.
    """

    path: Path
    columns: list[str]

    @classmethod
    def open(cls, path: str | Path) -> "RawFile":
        """
        Look at a file's ending and header.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the ending is unknown, the file is empty or not what its ending says.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"`path` must be a file of records, there is none at {path}.")
        if path.suffix.lower() not in ENDINGS:
            raise ValueError(
                f"`path` must end in one of {', '.join(ENDINGS)}, got {path.name}. Rename the file to what it holds."
            )
        if path.stat().st_size == 0:
            raise ValueError(f"{path} is empty: it has not even a header.")
        try:
            columns = _columns(path)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} must be UTF-8 text: {error}.") from error
        repeated = sorted({name for name in columns if columns.count(name) > 1})
        if repeated:
            raise ValueError(f"{path} must name each column once, found {', '.join(repeated)} more than once.")
        return cls(path, columns)

    def read(self, con: Any) -> "ibis.Table":
        """
        Give the file as a table in the order of its rows. Columns are strings, in Parquet of the types they have.

        Raises:
            ValueError: if the file breaks its format; the message names the line.
        """
        ending = self.path.suffix.lower()
        text = dict.fromkeys(self.columns, "VARCHAR")
        if ending == ".parquet":
            return con.read_parquet(self.path)
        if ending in _JSON_LINES:
            return con.read_json(self.path, format="newline_delimited", columns=text)
        quote = "" if ending in _ATOMIC else '"'
        options = {"header": True, "auto_detect": False, "delim": _DELIMITERS[ending], "quote": quote, "escape": quote}
        return con.read_csv(self.path, columns=text, **options)

    def place(self, row: int) -> str:
        """Say where a row (from 0, in the order of `read`) stands in the file: "line 3", in Parquet "row 2"."""
        if self.path.suffix.lower() == ".parquet":
            return f"row {row + 1}"
        return f"line {next(itertools.islice(self._lines(), row, None))}"

    def _lines(self) -> Iterator[int]:
        """First line of each record. Records may span lines and blank lines are no records, so this reads the file."""
        with self.path.open(encoding="utf-8-sig", newline="") as file:
            if self.path.suffix.lower() in _JSON_LINES:
                yield from (number for number, line in enumerate(file, start=1) if line.strip())
                return
            reader, line = _csv_reader(self.path, file), 1
            next(reader)
            while True:
                line = reader.line_num + 1
                record = next(reader, None)
                if record is None:
                    return
                if record:
                    yield line


def _columns(path: Path) -> list[str]:
    ending = path.suffix.lower()
    if ending == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.read_schema(path).names
        except pa.ArrowException as error:
            raise ValueError(f"{path} is not a readable Parquet file ({error}).") from error
    with path.open(encoding="utf-8-sig", newline="") as file:
        if ending in _JSON_LINES:
            return _json_keys(path, file)
        header: list[str] = next(_csv_reader(path, file), [])
    return [name.split(":")[0] for name in header] if ending in _ATOMIC else header


def _csv_reader(path: Path, file: Any) -> Any:
    ending = path.suffix.lower()
    if ending in _ATOMIC:
        return csv.reader(file, delimiter=_DELIMITERS[ending], quoting=csv.QUOTE_NONE)
    return csv.reader(file, delimiter=_DELIMITERS[ending])


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
