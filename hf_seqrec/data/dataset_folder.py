"""Write a dataset folder: sequences, catalog, statistics and card, all of them or nothing."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from .catalog import CATALOG_FILE, Catalog
from .sequences import SEQUENCES_FOLDER, STATISTICS_FILE

CARD_FILE = "README.md"
_OURS = {CARD_FILE, CATALOG_FILE, SEQUENCES_FOLDER, STATISTICS_FILE}
_SIZE_CATEGORIES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
)


def write_dataset_folder(
    output: str | Path,
    catalog: Catalog,
    write_sequences: Callable[[Path], None],
    statistics: dict[str, Any],
    title: str,
    description: str,
) -> Path:
    r"""
    Write a dataset folder and return its path.

    Everything goes into a temporary folder beside `output` that takes its name at the end: a build that fails leaves
    nothing half-written, and an earlier dataset in its place stays as it was.

    Args:
        output (`str`): The folder. May not exist, be empty, or hold an earlier dataset, which is replaced.
        catalog (`Catalog`): What the rows stand for.
        write_sequences (`Callable[[Path], None]`):
            Writes `*.parquet` into the folder it is given: one row per user with `user_id` (string), `item_ids`
            (list of int32) and `timestamps` (list of int64).
        statistics (`dict`): What else to say in `statistics.json` and the card; counts are added here.
        title (`str`), description (`str`): Heading and first paragraphs of the card.

    Raises:
        FileExistsError: if `output` holds something else.
        ValueError: if there is no user.
    """
    with replacing_folder(output) as folder:
        catalog.save(folder)
        (folder / SEQUENCES_FOLDER).mkdir()
        write_sequences(folder / SEQUENCES_FOLDER)
        statistics = count_statistics(_history_lengths(folder / SEQUENCES_FOLDER), catalog.n_items) | statistics
        (folder / STATISTICS_FILE).write_text(json.dumps(statistics, indent=2) + "\n", encoding="utf-8")
        card = _card(title, description, catalog, statistics)
        (folder / CARD_FILE).write_text(card, encoding="utf-8")
    return Path(output)


def count_statistics(lengths: npt.NDArray[np.int64], n_items: int) -> dict[str, Any]:
    """Counts of a dataset from its histories' lengths `(n_users,)`."""
    n_events = int(lengths.sum())
    return {
        "n_users": len(lengths),
        "n_items": n_items,
        "n_interactions": n_events,
        "n_users_not_evaluated": int((lengths < 3).sum()),
        "history_length": {
            "min": int(lengths.min()),
            "median": float(np.median(lengths)),
            "mean": round(float(lengths.mean()), 2),
            "max": int(lengths.max()),
        },
        "density": n_events / (len(lengths) * n_items),
    }


@contextmanager
def replacing_folder(output: str | Path) -> Iterator[Path]:
    """
    Yield a temporary folder beside `output` that takes its place when the block ends well, and is removed when not.

    Raises:
        FileExistsError: if `output` holds anything but a dataset of ours.
    """
    output = Path(output).resolve()
    check_replaceable(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".tmp", dir=output.parent))
    try:
        # `mkdtemp` makes it private to the user; a dataset folder gets the usual rights.
        temporary.chmod(0o777 & ~_umask())
        yield temporary
        check_replaceable(output)
        if output.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".old", dir=output.parent))
            output.rename(old / output.name)
            temporary.rename(output)
            shutil.rmtree(old)
        else:
            temporary.rename(output)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_replaceable(output: str | Path) -> None:
    """
    Do nothing where a dataset folder may be written.

    Raises:
        FileExistsError: if `output` is a file or holds anything but a dataset of ours.
    """
    output = Path(output)
    if not output.exists():
        return
    if not output.is_dir():
        raise FileExistsError(f"`output` must be a folder, {output} is a file. Choose another place.")
    found = {entry.name for entry in output.iterdir()}
    if found and not (found <= _OURS and CATALOG_FILE in found):
        foreign = sorted(found - _OURS) or sorted(found)
        raise FileExistsError(
            f"`output` must be new, empty or an earlier dataset, {output} holds something else: "
            f"{', '.join(foreign[:5])}. Choose another folder."
        )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _history_lengths(folder: Path) -> npt.NDArray[np.int64]:
    """Read the number of events of every user, one batch of users at a time."""
    lengths = []
    for path in sorted(folder.glob("*.parquet")):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["item_ids"]):
                lengths.append(np.diff(batch["item_ids"].offsets.to_numpy()).astype(np.int64))
    if not lengths:
        raise ValueError("a dataset must have at least one user, got none.")
    return np.concatenate(lengths)


def _card(title: str, description: str, catalog: Catalog, statistics: dict[str, Any]) -> str:
    n_users, n_events = statistics["n_users"], statistics["n_interactions"]
    size = next((name for limit, name in _SIZE_CATEGORIES if n_users < limit), "100M<n<1B")
    length = statistics["history_length"]
    return f"""---
pretty_name: {json.dumps(title, ensure_ascii=False)}
tags:
- sequential-recommendation
size_categories:
- {size}
configs:
- config_name: sequences
  default: true
  data_files:
  - split: train
    path: {SEQUENCES_FOLDER}/*.parquet
- config_name: catalog
  data_files:
  - split: train
    path: {CATALOG_FILE}
dataset_info:
- config_name: sequences
  features:
  - name: user_id
    dtype: string
  - name: item_ids
    list: int32
  - name: timestamps
    list: int64
- config_name: catalog
  features:
{_features(catalog.table.schema)}
---

# {title}

{description}

| | |
|---|---|
| users | {n_users:,} |
| items | {statistics["n_items"]:,} |
| interactions | {n_events:,} |
| events per user | {length["min"]:,} to {length["max"]:,}, median {length["median"]:g}, mean {length["mean"]:g} |
| density | {statistics["density"]:.4%} |
| users with fewer than three events | {statistics["n_users_not_evaluated"]:,} (kept for training, not evaluated) |

- `{SEQUENCES_FOLDER}/`: one row per user. `item_ids` are rows of the catalog, oldest first; `timestamps` are Unix
  seconds. Events of the same second stand in the order of the log. Every user's whole history is in the split
  `train`; held-out items are cut from it when it is used (leave-one-out: the last is for test, the last but one for
  validation).
- `{CATALOG_FILE}`: `row` (1 to {statistics["n_items"]:,}; row 0 is padding), `item_id` (the raw id), `count`, and
  what is known about the item. Most popular first, equal counts by raw id.

```python
from hf_seqrec.data import leave_one_out, load_sequences

sequences = load_sequences("path/to/this/folder")
train, validation, test = leave_one_out(sequences)[:3]
```
"""


def _features(schema: pa.Schema) -> str:
    return "\n".join(f"  - name: {json.dumps(field.name)}\n    dtype: {field.type}" for field in schema)
