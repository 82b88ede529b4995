"""The first records of a JSON file: which keys they have, which hold lists or objects. It has no header to say so."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .text_files import DAMAGED, compression, damaged, open_text

# So many records are looked at.
_SAMPLE = 1000
_PIECE = 1 << 20


@dataclass
class JsonSample:
    """
    What was seen in the first records of a file.

    Fields:
        is_array: Whether the file is one array of records, instead of a record on each line.
        keys: Every key, in the order in which they come.
        lists: Keys whose values are lists of plain values, always.
        nested: Keys with other nested values, or with lists in some records only, and where the first is.
        n: How many records.
    """

    is_array: bool = False
    keys: dict[str, None] = field(default_factory=dict)
    lists: set[str] = field(default_factory=set)
    nested: dict[str, str] = field(default_factory=dict)
    n: int = 0
    _plain: dict[str, str] = field(default_factory=dict)

    def add(self, record: dict[str, Any], place: str) -> None:
        """Look at one record."""
        self.n += 1
        self.keys |= dict.fromkeys(record)
        for key, value in record.items():
            is_list = isinstance(value, list) and not any(isinstance(item, dict | list) for item in value)
            if is_list:
                self.lists.add(key)
            elif isinstance(value, dict | list):
                self.nested.setdefault(key, place)
            elif value is not None:
                self._plain.setdefault(key, place)
            if key in self.lists and key in self._plain:
                self.nested.setdefault(key, place)

    @staticmethod
    def nesting(samples: "list[JsonSample]") -> tuple[frozenset[str], dict[str, str]]:
        """Keys that hold lists in all files that have them, and keys with other nested values: where the first is."""
        nested: dict[str, str] = {}
        for sample in samples:
            nested = sample.nested | nested
        lists = set().union(*(sample.lists for sample in samples))
        for sample in samples:
            for key in lists.intersection(sample._plain):
                nested.setdefault(key, sample._plain[key])
        return frozenset(lists - set(nested)), nested


def sample_records(path: Path, limit: int | None = _SAMPLE) -> JsonSample:
    """
    Look at the first records of a file with a JSON object on each line, or with one array of them.

    Args:
        path (`Path`): The file, possibly compressed.
        limit (`int`, *optional*, defaults to 1000): How many records; `None` for all.

    Raises:
        ValueError: if it is neither, is empty, or is a compressed file that was cut short. The message names the line.
    """
    sample = JsonSample()
    try:
        with open_text(path, "utf-8") as file:
            first, number = "", 0
            while not first.strip() and (line := file.readline()):
                first, number = line, number + 1
            if not first.strip():
                raise ValueError(f"{path} is empty: it has no records.")
            sample.is_array = first.lstrip().startswith("[") and not _is_line_of_another_kind(first, file, path)
            if sample.is_array:
                records = _records_of_array(path, first, file)
            else:
                lines = itertools.chain([(number, first)], enumerate(file, start=number + 1))
                records = _records_of_lines(path, lines)
            for place, record in itertools.islice(records, limit):
                sample.add(record, place)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8 text: {error}.") from error
    except DAMAGED as error:
        if not compression(path):
            raise
        raise damaged(path) from error
    return sample


def _is_line_of_another_kind(first: str, file: Any, path: Path) -> bool:
    """Whether a line that begins like an array of records is one whole array of something else."""
    try:
        value = json.loads(first)
    except json.JSONDecodeError:
        return False
    return bool(value) and not isinstance(value[0], dict)


def _records_of_lines(path: Path, lines: Iterator[tuple[int, str]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} must hold a JSON object on each line; line {number}: {error}.") from error
        if not isinstance(record, dict):
            raise ValueError(f"{path} must hold a JSON object on each line; line {number} is {line.strip()[:80]!r}.")
        if record and all(isinstance(value, dict) for value in record.values()):
            raise ValueError(
                f"{path}, line {number}: each value of this object is an object itself, such as pandas writes a whole "
                'table. Write records: `to_json(path, orient="records", lines=True)`.'
            )
        yield f"{path}, line {number}", record


def _records_of_array(path: Path, first: str, file: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    decoder = json.JSONDecoder()
    text, number = first.lstrip()[1:], 0
    while True:
        text = text.lstrip().removeprefix(",").lstrip() if number else text.lstrip()
        try:
            if text.startswith("]"):
                return
            record, end = decoder.raw_decode(text)
        except json.JSONDecodeError as error:
            piece = file.read(max(_PIECE, len(text)))
            if not piece:
                raise ValueError(
                    f"{path} must be an array of JSON objects; record {number + 1} is not whole: {error.msg}."
                ) from error
            text += piece
            continue
        number += 1
        if not isinstance(record, dict):
            raise ValueError(f"{path} must be an array of JSON objects; record {number} is {str(record)[:80]!r}.")
        text = text[end:]
        yield f"{path}, record {number}", record
