"""A dataset folder in memory: every user's events in one flat array, checked at the door."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from .catalog import CATALOG_FILE, Catalog

SEQUENCES_FOLDER = "sequences"
STATISTICS_FILE = "statistics.json"


@dataclass(frozen=True, repr=False)
class Sequences:
    """
    All histories of a dataset. User i's events are `item_rows[offsets[i]:offsets[i + 1]]`, oldest first.

    Args:
        item_rows (`(n_events,)` int32): Catalog rows, in 1..n_items.
        offsets (`(n_users + 1,)` int64): Where each history begins; the last is `n_events`.
        catalog (`Catalog`): What the rows stand for.
        user_ids (`pyarrow.StringArray` or `pyarrow.ChunkedArray`): Raw ids of the users.
        timestamps (`(n_events,)` int64, *optional*): Unix seconds; only when asked for.
        statistics (`dict`): What the folder says about itself: `n_users`, `n_items`, `n_interactions` ...

    Raises:
        ValueError: if offsets are inconsistent or a row is not in the catalog.
    """

    item_rows: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]
    catalog: Catalog
    user_ids: pa.StringArray | pa.ChunkedArray
    timestamps: npt.NDArray[np.int64] | None = None
    statistics: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_offsets(self.offsets, len(self.item_rows), len(self.user_ids))
        _check_rows(self.item_rows, self.offsets, self.user_ids, self.catalog.n_items)

    @property
    def n_users(self) -> int:
        """Number of histories."""
        return len(self.offsets) - 1

    @property
    def n_items(self) -> int:
        """Number of items of the catalog, the padding row not counted."""
        return self.catalog.n_items

    @property
    def n_interactions(self) -> int:
        """Number of events."""
        return len(self.item_rows)

    def __len__(self) -> int:
        return self.n_users

    def __repr__(self) -> str:
        return f"{self.n_users:,} users / {self.n_items:,} items / {self.n_interactions:,} interactions"

    def history(self, user: int | str) -> npt.NDArray[np.int32]:
        """
        Rows of one user's events, oldest first, by position in the folder (an integer) or by raw id (a string).

        Raises:
            ValueError: if there is no such user.
        """
        position = self.user_ids.index(user).as_py() if isinstance(user, str) else user
        if not 0 <= position < self.n_users:
            raise ValueError(f"`user` must be one of the {self.n_users:,} users of this dataset, got {user!r}.")
        return self.item_rows[self.offsets[position] : self.offsets[position + 1]]


def load_sequences(folder: str | Path, revision: str | None = None, timestamps: bool = False) -> Sequences:
    r"""
    Read a dataset folder, or fetch it from the Hub.

    Args:
        folder (`str`): A folder as `build_dataset` writes it, or the id of a dataset on the Hub.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.
        timestamps (`bool`, *optional*, defaults to `False`): Whether to read the timestamps too.

    Raises:
        FileNotFoundError: if the folder is not a dataset folder.
        ValueError: if a file of it is damaged: a column is missing, a row is not in the catalog.
    """
    path = Path(folder)
    if not path.is_dir():
        path = fetch_dataset(str(folder), revision, [CATALOG_FILE, STATISTICS_FILE, f"{SEQUENCES_FOLDER}/*.parquet"])
    if not is_dataset_folder(path):
        raise FileNotFoundError(
            f"`folder` must be a dataset folder, with {CATALOG_FILE} and {SEQUENCES_FOLDER}/*.parquet; {path} is not. "
            "`hf-seqrec build <log> --output <folder>` builds one."
        )
    names = ["user_id", "item_ids"] + (["timestamps"] if timestamps else [])
    tables = [_read_shard(file, names) for file in sorted((path / SEQUENCES_FOLDER).glob("*.parquet"))]
    item_rows, offsets = flat_lists(_chunks(tables, "item_ids"), np.int32)
    times = None
    if timestamps:
        times, time_offsets = flat_lists(_chunks(tables, "timestamps"), np.int64)
        if not np.array_equal(offsets, time_offsets):
            raise ValueError(f"{path}: `timestamps` and `item_ids` must have the same lengths for every user.")
    statistics_file = path / STATISTICS_FILE
    statistics = json.loads(statistics_file.read_text(encoding="utf-8")) if statistics_file.is_file() else {}
    try:
        user_ids = pa.chunked_array(_chunks(tables, "user_id"), pa.string())
        return Sequences(item_rows, offsets, Catalog.from_pretrained(path), user_ids, times, statistics)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def is_dataset_folder(path: Path) -> bool:
    """Whether a folder has a catalog and at least one file of sequences."""
    return (path / CATALOG_FILE).is_file() and any((path / SEQUENCES_FOLDER).glob("*.parquet"))


def fetch_dataset(name: str, revision: str | None, patterns: list[str]) -> Path:
    """Download those files of a dataset on the Hub that match a pattern, and return the folder they are in."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise FileNotFoundError(
            f"`folder` must be a folder or a dataset on the Hub, {name!r} is neither: {error}"
        ) from error


def _read_shard(file: Path, names: list[str]) -> pa.Table:
    try:
        parquet = pq.ParquetFile(file)
    except pa.ArrowException as error:
        raise ValueError(f"{file} is not a readable Parquet file ({error}).") from error
    with parquet:
        found = parquet.schema_arrow.names
        missing = [name for name in names if name not in found]
        if missing:
            raise ValueError(
                f"{file} must have the columns {', '.join(names)}; {', '.join(missing)} missing, found {found}."
            )
        table = parquet.read(columns=names)
    for name in names[1:]:
        if not (pa.types.is_list(table[name].type) or pa.types.is_large_list(table[name].type)):
            raise ValueError(f"{file}: `{name}` must be a list of integers for each user, found {table[name].type}.")
    return table.set_column(0, "user_id", table["user_id"].cast(pa.string()))


def _chunks(tables: list[pa.Table], name: str) -> list[pa.Array]:
    """Collect one column of all shards. Their lists may be of different integers."""
    return [chunk for table in tables for chunk in table[name].chunks]


def flat_lists(chunks: list[pa.Array], dtype: type) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Values of all lists in one array and the offsets of each list. One chunk is not copied."""
    if any(chunk.null_count for chunk in chunks):
        raise ValueError("`item_ids` and `timestamps` must hold a list for every user, found none for some.")
    values = [_integers(chunk.flatten(), dtype) for chunk in chunks]
    lengths = [np.diff(chunk.offsets.to_numpy()) for chunk in chunks]
    offsets = np.zeros(sum(map(len, chunks)) + 1, dtype=np.int64)
    if lengths:
        np.cumsum(np.concatenate(lengths), out=offsets[1:])
    if len(values) == 1:
        return values[0], offsets
    return (np.concatenate(values) if values else np.zeros(0, dtype)), offsets


def _integers(values: pa.Array, dtype: type) -> npt.NDArray[Any]:
    if values.null_count or not pa.types.is_integer(values.type):
        raise ValueError(f"lists must hold integers and no nulls, found {values.type} with {values.null_count} nulls.")
    try:
        return values.cast(pa.from_numpy_dtype(dtype)).to_numpy()
    except pa.ArrowInvalid as error:
        raise ValueError(f"lists must hold {np.dtype(dtype)}: {error}") from error


def _check_offsets(offsets: npt.NDArray[np.int64], n_events: int, n_users: int) -> None:
    if len(offsets) != n_users + 1 or offsets[0] != 0 or offsets[-1] != n_events or (np.diff(offsets) < 0).any():
        raise ValueError(
            f"`offsets` must rise from 0 to the {n_events} events in {n_users + 1} steps, one more than there are "
            f"users."
        )


def _check_rows(item_rows: npt.NDArray[np.int32], offsets: npt.NDArray[np.int64], user_ids: Any, n_items: int) -> None:
    if not len(item_rows) or (item_rows.min() >= 1 and item_rows.max() <= n_items):
        return
    wrong = np.flatnonzero((item_rows < 1) | (item_rows > n_items))
    user = int(np.searchsorted(offsets, wrong[0], side="right")) - 1
    raise ValueError(
        f"item rows must be in 1..{n_items}, the rows of the catalog, got {item_rows[wrong[0]]} for user "
        f"{user_ids[user].as_py()!r} ({len(wrong)} such events). The sequences and {CATALOG_FILE} do not belong "
        f"together."
    )
