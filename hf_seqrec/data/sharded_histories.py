"""The histories of a dataset folder read shard by shard, here or at any address, for data larger than memory."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from .catalog import CATALOG_FILE, Catalog
from .sequences import SEQUENCES_FOLDER, STATISTICS_FILE, Sequences, fetch_dataset, flat_lists


class RowGroup(NamedTuple):
    """Some users of a shard that are read together: `file`, the group's number in it, and whose histories it has."""

    file: str
    number: int
    first_user: int
    end_user: int


class ShardedHistories:
    """
    The row groups of a dataset folder, here or elsewhere, read one at a time. See [`StreamedHistories`].

    Fields:
        groups: All row groups, in the order of the users.
        n_users, n_items: As the files say it.
    """

    def __init__(self, folder: str | Path):
        self.address = _address(folder)
        filesystem, root = self._filesystem()
        files = sorted(filesystem.glob(f"{root}/{SEQUENCES_FOLDER}/*.parquet"))
        catalog = f"{root}/{CATALOG_FILE}"
        if not files or not filesystem.isfile(catalog):
            raise FileNotFoundError(
                f"`folder` must be a dataset folder, with {CATALOG_FILE} and {SEQUENCES_FOLDER}/*.parquet, here or on "
                f"the Hub; {self.address} is not."
            )
        self.n_items = _metadata(filesystem, catalog).num_rows
        self.groups: list[RowGroup] = []
        user = 0
        for file in files:
            metadata = _metadata(filesystem, file)
            for number in range(metadata.num_row_groups):
                n_users = metadata.row_group(number).num_rows
                self.groups.append(RowGroup(file, number, user, user + n_users))
                user += n_users
        self.n_users = user
        if not user:
            raise ValueError(f"{self.address} must have at least one user, found none.")

    def read(self, group: RowGroup) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """Read the histories of a row group: all events, and where each history begins, `(n + 1,)`."""
        return self._events(group, self._columns(group, ["item_ids"])["item_ids"])

    def sample(self, n_users: int, seed: int) -> Sequences:
        """Read the histories of users drawn at random."""
        filesystem, root = self._filesystem()
        statistics_file = f"{root}/{STATISTICS_FILE}"
        if not filesystem.isfile(statistics_file):
            raise ValueError(
                f"{self.address} must have {STATISTICS_FILE}, which says what a part of the histories is part of. "
                "`hf-seqrec build` builds folders that have it."
            )
        n_users = min(n_users, self.n_users)
        drawn = np.sort(np.random.default_rng(seed).choice(self.n_users, n_users, replace=False))
        item_rows, lengths, user_ids = [], [], []
        for group in self.groups:
            inside = drawn[(drawn >= group.first_user) & (drawn < group.end_user)] - group.first_user
            if not len(inside):
                continue
            table = self._columns(group, ["user_id", "item_ids"]).take(pa.array(inside))
            rows, offsets = self._events(group, table["item_ids"])
            item_rows.append(rows)
            lengths.append(np.diff(offsets))
            user_ids += table["user_id"].cast(pa.string()).chunks
        with filesystem.open(catalog := f"{root}/{CATALOG_FILE}") as file:
            table = pq.read_table(file)
        try:
            return Sequences(
                np.concatenate(item_rows),
                np.append(0, np.cumsum(np.concatenate(lengths))),
                Catalog(table),
                pa.chunked_array(user_ids, pa.string()),
                statistics=json.loads(filesystem.cat_file(statistics_file)),
            )
        except ValueError as error:
            raise ValueError(f"{catalog}: {error}") from error

    def _columns(self, group: RowGroup, names: list[str]) -> pa.Table:
        filesystem, _ = self._filesystem()
        try:
            with filesystem.open(group.file) as file, pq.ParquetFile(file) as parquet:
                found = parquet.schema_arrow.names
                if not set(names) <= set(found):
                    raise ValueError(f"{group.file} must have the columns {', '.join(names)}; found {found}.")
                return parquet.read_row_group(group.number, columns=names)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{group.file}, row group {group.number} cannot be read ({error}).") from error

    def _events(self, group: RowGroup, lists: pa.ChunkedArray) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        try:
            item_rows, offsets = flat_lists(lists.chunks, np.int32)
        except ValueError as error:
            raise ValueError(f"{group.file}, row group {group.number}: {error}") from error
        if len(item_rows) and not (item_rows.min() >= 1 and item_rows.max() <= self.n_items):
            raise ValueError(
                f"{group.file}, row group {group.number}: item rows must be in 1..{self.n_items}, the rows of the "
                f"catalog, got {item_rows.min()} to {item_rows.max()}. The sequences and {CATALOG_FILE} do not belong "
                "together."
            )
        return item_rows, offsets

    def _filesystem(self) -> tuple[Any, str]:
        """Open the file system anew: what a connection holds must not go from a process into its workers."""
        import fsspec

        return fsspec.core.url_to_fs(self.address)


def _address(folder: str | Path) -> str:
    """Write a folder, or the id of a dataset on the Hub, as an address."""
    text = os.fspath(folder)
    if "://" in text:
        return text.rstrip("/")
    if os.path.isdir(text) or text.count("/") != 1 or text.startswith((".", "/")):
        return os.path.abspath(text)
    # The smallest file first: where there is no such dataset, or no connection, this says so.
    fetch_dataset(text, None, [CATALOG_FILE])
    return f"hf://datasets/{text}"


def _metadata(filesystem: Any, path: str) -> pq.FileMetaData:
    try:
        with filesystem.open(path) as file:
            return pq.read_metadata(file)
    except pa.ArrowException as error:
        raise ValueError(f"{path} is not a readable Parquet file ({error}).") from error
