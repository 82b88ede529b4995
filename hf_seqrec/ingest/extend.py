"""Fold new events into a dataset folder, so that a checkpoint that was trained on it stays valid."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tqdm.auto import tqdm
from transformers.utils import logging

from ..data.catalog import Catalog
from ..data.sequences import SEQUENCES_FOLDER, STATISTICS_FILE, is_dataset_folder
from .build import BuildArguments
from .dataset_card import About
from .dataset_folder import fill_dataset_folder, replacing_dataset_folder
from .engines import open_engine
from .log_files import RawFile
from .numbering import EncodedLog, encode
from .raw_times import UNITS, whole_seconds
from .read_log import InteractionsArguments, read_interactions, read_items, reading, select_rows
from .sequence_files import EventStream, HistoryFiles, histories_table

if TYPE_CHECKING:
    import ibis

logger = logging.get_logger(__name__)

# How a folder was built holds for what is added to it.
_KEPT_OPTIONS = (
    "user_column", "item_column", "timestamp_column", "where", "rating_threshold", "rating_column", "min_user_events",
    "min_item_events",
)  # fmt: skip
_OVER_ALL_EVENTS = ("repeats", "max_users", "max_items", "last_n")


def extend_dataset(
    folder: str | Path,
    raw: Any,
    arguments: InteractionsArguments | None = None,
    build_arguments: BuildArguments | None = None,
    items: Any = None,
    output: str | Path | None = None,
    about: About | None = None,
    progress: bool = False,
) -> Path:
    r"""
    Add the events of a log to the histories of a dataset folder and return the folder's path.

    Items keep their rows; those that are new get the rows after them, most popular first, so that a checkpoint needs
    nothing but more rows. Users keep their places, new ones come after them. Each history is in order of time again
    (to the second; of the same second, what was there comes first). Events that are there already (the same user, item
    and second) are left out and counted, so that a log may overlap with what was folded in before.

    Of the old dataset one row group is held at a time, and the catalog; the new events are sorted out of core.

    Args:
        folder (`str`): A dataset folder.
        raw (`str`, a list of them, a table, or `RawFile`): The log of new events, as for `build_dataset`.
        arguments (`InteractionsArguments`, *optional*):
            Columns, rows and ratings to keep, and how many events a new user or item must have in this log
            (`min_user_events`, `min_item_events`); users and items that are there keep all of theirs. What is left
            out is as when the folder was built, where the log has the columns for it. Filters over all events
            (repeats, most popular ...) are refused: they could take what a checkpoint relies on.
        build_arguments (`BuildArguments`, *optional*): Engine and memory. Files stay as they are; new users get one.
        items (a file, a table, or `RawFile`, *optional*):
            What is known about the new items, instead of `arguments.items`.
        output (`str`, *optional*): Another place for the result. The folder itself is replaced when left out, at the
            end: see `replacing_dataset_folder`.
        about (`About`, *optional*): What the card says of the source.
        progress (`bool`, *optional*, defaults to `False`): Whether to show a progress bar.

    Raises:
        FileNotFoundError: if `folder` is not a dataset folder, or there is no such log.
        ValueError: if a filter cannot be applied to an addition, the log is malformed, or it has nothing new.

    Example:

    ```python
    >>> extend_dataset("data/my-shop", "yesterday.csv")
    ```
    """
    folder = Path(folder)
    if not is_dataset_folder(folder):
        raise FileNotFoundError(f"`folder` must be a dataset folder to add to, {folder} is none. Build one first.")
    raw = RawFile.open(raw)
    arguments, build_arguments = arguments or InteractionsArguments(), build_arguments or BuildArguments()
    _check_filters(arguments)
    items = arguments.items if items is None else items
    items = None if items is None else RawFile.open(items)
    old = _OldFolder(folder)
    arguments = _as_built(arguments, old.statistics.get("source", {}), raw)
    with replacing_dataset_folder(output or folder) as new, tqdm(total=2, disable=not progress) as bar:
        work = new / "work"
        work.mkdir()
        engine = open_engine(build_arguments.engine, work, build_arguments.memory_limit)
        try:
            bar.set_description(f"Reading {raw.name}")
            log = read_interactions(engine, raw, arguments)
            with reading(raw):
                encoded = encode(engine, select_rows(log.events, arguments))
            users, found = _enough_events(engine, encoded, old, arguments)
            catalog, rows = _extend_catalog(old.catalog, engine, found, arguments, items)
            user_ids, positions = _extend_users(old.user_ids, users)
            events = _new_events(engine, encoded, rows, positions, UNITS[log.time_unit])
            bar.update()

            bar.set_description("Sequences")
            merge = _Merge(old, EventStream(engine.stream(events), ("position", "row", "timestamp")), user_ids)
            (work / SEQUENCES_FOLDER).mkdir()
            merge.write(work / SEQUENCES_FOLDER, catalog.n_items)
            if not merge.n_added:
                raise ValueError(f"{raw.name} has nothing new: {_left_out(merge, encoded)}.")
            statistics = old.statistics | {"fingerprint": None}
            for name in ("n_users", "n_items", "n_interactions", "n_users_not_evaluated", "history_length", "density"):
                statistics.pop(name, None)
            statistics["steps"] = [*statistics.get("steps", []), _step(raw, merge, catalog)]
            statistics["skipped_rows"] = statistics.get("skipped_rows", {}) | log.n_skipped
            fill_dataset_folder(
                new,
                _with_counts(catalog, merge.counts),
                np.concatenate(merge.lengths),
                lambda target: _move_files(work / SEQUENCES_FOLDER, target),
                statistics,
                about or About(folder.resolve().name, f"Built by hf_seqrec; events of `{raw.name}` were added last."),
            )
            bar.update()
        finally:
            engine.close()
            shutil.rmtree(work)
    return Path(output or folder)


class _OldFolder:
    """What is in a dataset folder, its histories not read yet."""

    def __init__(self, folder: Path):
        self.catalog = Catalog.from_pretrained(folder)
        self.files = sorted((folder / SEQUENCES_FOLDER).glob("*.parquet"))
        self.user_ids = pa.chunked_array(
            [pq.read_table(file, columns=["user_id"])["user_id"].combine_chunks() for file in self.files], pa.string()
        ).combine_chunks()
        statistics = folder / STATISTICS_FILE
        self.statistics = json.loads(statistics.read_text(encoding="utf-8")) if statistics.is_file() else {}

    def groups(self) -> Iterator[tuple[Path, pa.Table]]:
        """Yield one row group after the other, and the file in which it stands."""
        for path in self.files:
            with pq.ParquetFile(path) as file:
                for number in range(file.num_row_groups):
                    yield path, file.read_row_group(number, columns=["user_id", "item_ids", "timestamps"])


class _Merge:
    """Merges new events, which come by the user's position and time, into the old histories."""

    def __init__(self, old: _OldFolder, events: EventStream, user_ids: pa.StringArray):
        self.old, self.events, self.user_ids = old, events, user_ids
        self.lengths: list[npt.NDArray[np.int64]] = []
        self.n_added = self.n_known = 0
        self.counts = np.zeros(0, np.int64)

    def write(self, target: Path, n_items: int) -> None:
        """Write all histories, the old users' in files of the old names, the new users' in one more."""
        self.counts = np.zeros(n_items, np.int64)
        first = 0
        with HistoryFiles(target) as files:
            for path, group in self.old.groups():
                stop = first + len(group)
                files.write(path.name, self._merged(first, stop, *_flat(group)))
                first = stop
            while self.events.has_more():
                stop = self.events.user_after(first)
                nothing = np.zeros(0, np.int64)
                table = self._merged(first, stop, np.zeros(stop - first, np.int64), nothing, nothing)
                files.write(f"part-{len(self.old.files):05d}.parquet", table)
                first = stop

    def _merged(
        self,
        first: int,
        stop: int,
        lengths: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int64],
        times: npt.NDArray[np.int64],
    ) -> pa.Table:
        """Histories of the users `first..stop - 1`, whose old events these are."""
        user, row, time = self.events.take_users(stop)
        known = _is_in((user, row, time), (np.repeat(np.arange(first, stop), lengths), rows, times))
        self.n_known += int(known.sum())
        self.n_added += int((~known).sum())
        user = np.concatenate([np.repeat(np.arange(first, stop), lengths), user[~known]])
        row, time = np.concatenate([rows, row[~known]]), np.concatenate([times, time[~known]])
        # Stable: of the same second, old events come first, then new ones in the order in which they came.
        order = np.lexsort((time, user))
        self.counts += np.bincount(row, minlength=len(self.counts) + 1)[1:]
        new_lengths = np.bincount(user - first, minlength=stop - first)
        self.lengths.append(new_lengths)
        return histories_table(self.user_ids[first:stop], new_lengths, pa.array(row[order]), pa.array(time[order]))


def _is_in(new: tuple[npt.NDArray[np.int64], ...], old: tuple[npt.NDArray[np.int64], ...]) -> npt.NDArray[np.bool_]:
    """Which of the new events (user, row, time) are among the old ones."""
    of_same_users = np.isin(old[0], new[0])
    user, row, time = (np.concatenate([a[of_same_users], b]) for a, b in zip(old, new, strict=True))
    n_old = int(of_same_users.sum())
    # Equal events stand together, old ones first, because the sort is stable.
    order = np.lexsort((time, row, user))
    sorted_events = np.stack([user, row, time])[:, order]
    begins = np.ones(len(order), dtype=bool)
    begins[1:] = (sorted_events[:, 1:] != sorted_events[:, :-1]).any(axis=0)
    first_of_its_kind = order[np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))]
    is_known = np.empty(len(order), dtype=bool)
    is_known[order] = first_of_its_kind < n_old
    return is_known[n_old:]


def _flat(group: pa.Table) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Lengths of the histories, and all rows and timestamps."""
    columns = [group[name].combine_chunks() for name in ("item_ids", "timestamps")]
    lengths = pc.list_value_length(columns[0]).to_numpy(zero_copy_only=False).astype(np.int64)
    rows, times = (column.flatten().to_numpy(zero_copy_only=False).astype(np.int64) for column in columns)
    return lengths, rows, times


def _enough_events(
    engine: Any, encoded: EncodedLog, old: _OldFolder, arguments: InteractionsArguments
) -> tuple[pa.Table, pa.Table]:
    """Give the users and the items of the log: those that are there already, and new ones with enough events."""
    least = {"user": arguments.min_user_events, "item": arguments.min_item_events}
    known_ids = {"user": old.user_ids, "item": old.catalog.item_ids}
    found = {"user": encoded.users.order_by("user").to_pyarrow(), "item": encoded.items.order_by("item").to_pyarrow()}
    is_known = {
        key: pc.is_in(table[f"{key}_id"].cast(pa.string()), value_set=known_ids[key]).combine_chunks()
        for key, table in found.items()
    }
    # As the k-core: an item that goes may leave a user with too few events.
    while True:
        n_before = {key: len(table) for key, table in found.items()}
        for key, other in (("user", "item"), ("item", "user")):
            is_kept = pc.or_(is_known[key], pc.greater_equal(found[key]["n"], least[key]))
            if pc.all(is_kept).as_py():
                continue
            found[key] = found[key].filter(is_kept)
            is_known[key] = is_known[key].filter(pc.fill_null(is_kept, False).combine_chunks())
            counts = _counts(engine, encoded.events, found, other)
            place = pc.index_in(found[other][other], value_set=counts[other])
            n = pc.fill_null(counts["n"].take(place), 0)
            found[other] = found[other].set_column(found[other].column_names.index("n"), "n", n)
        if n_before == {key: len(table) for key, table in found.items()}:
            return found["user"], found["item"]


def _counts(engine: Any, events: "ibis.Table", kept: dict[str, pa.Table], key: str) -> pa.Table:
    """Count the events of each user or item, of the users and items that are kept."""
    import ibis

    for other, table in kept.items():
        events = events.semi_join(engine.materialize("kept", ibis.memtable(table.select([other]))), other)
    return events.group_by(key).agg(n=events.count()).to_pyarrow()


def _extend_catalog(
    old: Catalog, engine: Any, found: pa.Table, arguments: InteractionsArguments, items: RawFile | None
) -> tuple[Catalog, pa.Table]:
    """Give the catalog with the new items, and the row of each item that is kept: `item`, `row`."""
    index = pc.index_in(found["item_id"].cast(pa.string()), value_set=old.item_ids).combine_chunks()
    rows = pc.add(pc.fill_null(index, -1), 1).to_numpy(zero_copy_only=False).astype(np.int64)
    is_new = rows == 0
    rows[is_new] = old.n_items + 1 + np.arange(is_new.sum())
    new_ids = found["item_id"].filter(pa.array(is_new)).combine_chunks().cast(pa.string())
    new = pa.table(
        {"row": pa.array(rows[is_new], pa.int32()), "item_id": new_ids, "count": pa.nulls(len(new_ids), pa.int64())}
    )
    if items is not None:
        known = read_items(engine, items, arguments).to_pyarrow()
        place = pc.index_in(new_ids, value_set=known["item_id"].combine_chunks().cast(pa.string()))
        for name in known.column_names[1:]:
            if name in old.table.column_names:
                new = new.append_column(name, known[name].combine_chunks().take(place).cast(pa.string()))
    table = pa.concat_tables([old.table, new], promote_options="permissive").select(old.table.column_names)
    table = table.set_column(
        table.column_names.index("count"), "count", pc.fill_null(table["count"], 0).cast(pa.int64())
    )
    return Catalog(table), pa.table({"item": found["item"], "row": pa.array(rows)})


def _extend_users(old: pa.StringArray, found: pa.Table) -> tuple[pa.StringArray, pa.Table]:
    """Give all users' raw ids, and the position of each user that is kept: `user`, `position`."""
    ids = found["user_id"].combine_chunks().cast(pa.string())
    index = pc.fill_null(pc.index_in(ids, value_set=old), -1).to_numpy(zero_copy_only=False).astype(np.int64)
    is_new = index < 0
    index[is_new] = len(old) + np.arange(is_new.sum())
    everyone = pa.concat_arrays([old, ids.filter(pa.array(is_new))])
    return everyone, pa.table({"user": found["user"], "position": pa.array(index)})


def _new_events(
    engine: Any, encoded: EncodedLog, rows: pa.Table, positions: pa.Table, units_per_second: int
) -> "ibis.Table":
    """Give `position`, `row` and `timestamp` (seconds) of the new events, user by user, by time."""
    import ibis

    places = (engine.materialize("places", ibis.memtable(table)) for table in (rows, positions))
    events = encoded.events.join(next(places), "item").join(next(places), "user")
    events = events.mutate(timestamp=whole_seconds(events.time, units_per_second)).order_by(
        "position", "time", "file_order"
    )
    return events.select("position", "row", "timestamp")


def _with_counts(catalog: Catalog, counts: npt.NDArray[np.int64]) -> Catalog:
    place = catalog.table.column_names.index("count")
    return Catalog(catalog.table.set_column(place, "count", pa.array(counts)))


def _move_files(source: Path, target: Path) -> None:
    for path in source.iterdir():
        path.rename(target / path.name)


def _step(raw: RawFile, merge: _Merge, catalog: Catalog) -> dict[str, Any]:
    lengths = np.concatenate(merge.lengths)
    known = f" ({merge.n_known:,} events were there already)" if merge.n_known else ""
    return {
        "name": f"added {raw.name}{known}",
        "n_users": len(lengths),
        "n_items": catalog.n_items,
        "n_interactions": int(lengths.sum()),
    }


def _left_out(merge: _Merge, encoded: EncodedLog) -> str:
    rare = encoded.n_interactions - merge.n_known
    return f"{merge.n_known:,} of its events are there already, {rare:,} are of new users or items with too few events"


def _as_built(arguments: InteractionsArguments, source: dict[str, Any], raw: RawFile) -> InteractionsArguments:
    """Fill in what is left out with how the folder was built."""
    defaults = InteractionsArguments()
    options = {}
    for name in _KEPT_OPTIONS:
        built_with = source.get(name, getattr(defaults, name))
        if getattr(arguments, name) != getattr(defaults, name) or built_with == getattr(defaults, name):
            continue
        # A column of that log need not be one of this.
        if not name.endswith("_column") or built_with in raw.columns:
            options[name] = built_with
    given_up = [name for name in _OVER_ALL_EVENTS if name in source and source[name] != getattr(defaults, name)]
    if given_up:
        logger.warning(
            f"The folder was built with `{'`, `'.join(given_up)}`, which looks at all events and is not applied to "
            "those that are added. Build the dataset anew where it must hold."
        )
    return dataclasses.replace(arguments, **options)


def _check_filters(arguments: InteractionsArguments) -> None:
    defaults = InteractionsArguments()
    wrong = [name for name in _OVER_ALL_EVENTS if getattr(arguments, name) != getattr(defaults, name)]
    if wrong:
        raise ValueError(
            f"`{'`, `'.join(wrong)}` must be left out when events are added: such a filter looks at all events and "
            "could take items that a checkpoint knows. Build the dataset anew for that."
        )
