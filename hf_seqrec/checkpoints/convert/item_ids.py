"""The raw item ids that belong to the rows of a converted model's embedding."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...data.catalog import Catalog

ROWS = "rows"
# RecBole's name of row 0.
_PADDING = "[PAD]"


def make_catalog(item_ids: Any, n_items: int, where: str) -> Catalog:
    r"""
    Make the catalog of raw ids in row order.

    Args:
        item_ids (`list`): Raw ids of rows `1..n_items`; RecBole's list also has `"[PAD]"` for row 0, before them.
        n_items (`int`): How many items the model has.
        where (`str`): Where the ids come from, for the message.

    Raises:
        ValueError: if there are more or fewer ids than items, or an id is empty or repeated.
    """
    if not isinstance(item_ids, list | tuple) or not all(isinstance(i, str | int) for i in item_ids):
        raise ValueError(f"The item ids of {where} must be a list of texts or integers, one for each row.")
    ids = [str(item_id) for item_id in item_ids]
    if ids[:1] == [_PADDING]:
        ids = ids[1:]
    _check_number(len(ids), n_items, where)
    return Catalog.from_items(ids)


def read_catalog(item_ids: str | Path, n_items: int) -> Catalog:
    r"""
    Read the raw ids of rows `1..n_items` from a file.

    Args:
        item_ids (`str`):
            A dataset or checkpoint folder or its `catalog.parquet`; a file with one id a line (`.txt`), a CSV or TSV
            with a column `item_id`, or a JSON list, each in the order of the rows; or `"rows"`, where the raw ids are
            the numbers of the rows, as in the data of SASRec and its descendants.
        n_items (`int`): How many items the model has.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds more or fewer ids than the model has items, or is none of these.
    """
    if str(item_ids) == ROWS:
        return Catalog.from_items([str(row) for row in range(1, n_items + 1)])
    path = Path(item_ids)
    if path.is_dir() or path.suffix == ".parquet":
        catalog = Catalog.from_pretrained(path)
        _check_number(catalog.n_items, n_items, str(path))
        return catalog
    if not path.is_file():
        raise FileNotFoundError(f"`item_ids` must be {ROWS!r}, a folder with a catalog, or a file; found no {path}.")
    try:
        text = path.read_text(encoding="utf-8-sig")
        ids = json.loads(text) if path.suffix == ".json" else list(_lines(text, path))
    except (UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise ValueError(f"`item_ids` {path} is not readable as its ending says: {error}.") from error
    return make_catalog(ids, n_items, str(path))


def _lines(text: str, path: Path) -> Iterator[str]:
    lines = [line for line in text.splitlines() if line.strip()]
    if path.suffix not in (".csv", ".tsv"):
        yield from (line.strip() for line in lines)
        return
    table = csv.DictReader(lines, delimiter="," if path.suffix == ".csv" else "\t")
    if "item_id" not in (table.fieldnames or ()):
        raise ValueError(
            f"`item_ids` {path} must have a column `item_id`, found {', '.join(table.fieldnames or ()) or 'nothing'}. "
            "Name it so in the first line."
        )
    yield from (record["item_id"] or "" for record in table)


def _check_number(found: int, n_items: int, where: str) -> None:
    if found != n_items:
        raise ValueError(
            f"{where} has {found} item ids, but the model has {n_items} items (rows 1..{n_items}; row 0 is padding). "
            "Pass the ids of the data that the model was trained with, one for each row, in their order."
        )
