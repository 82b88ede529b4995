"""Write a dataset folder: sequences, catalog, statistics, card and picture, all of them or nothing."""

import errno
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.catalog import CATALOG_FILE, Catalog
from ..data.sequences import SEQUENCES_FOLDER, STATISTICS_FILE
from ..replacing_folder import replacing_folder
from .dataset_card import CARD_FILE, PICTURE_FILE, About, draw_statistics, render_card

# What a build takes on the disk, with room to spare: the numbered log, what a sort spills, the histories. With 20
# million events and a gigabyte of memory they were 15 bytes.
_BYTES_PER_EVENT = 30

_OURS = {CARD_FILE, CATALOG_FILE, PICTURE_FILE, SEQUENCES_FOLDER, STATISTICS_FILE}


def write_dataset_folder(
    output: str | Path,
    catalog: Catalog,
    lengths: npt.NDArray[np.int64],
    write_sequences: Callable[[Path], None],
    statistics: dict[str, Any],
    about: About,
) -> Path:
    r"""
    Write a dataset folder and return its path.

    Everything goes into a temporary folder beside `output` that takes its name at the end: see
    [`replacing_dataset_folder`].

    Args:
        output (`str`): The folder. May not exist, be empty, or hold an earlier dataset, which is replaced.
        catalog (`Catalog`): What the rows stand for.
        lengths (`(n_users,)` int64): Events of each user.
        write_sequences (`Callable[[Path], None]`):
            Writes `*.parquet` into the folder it is given: one row per user with `user_id` (string), `item_ids`
            (list of int32) and `timestamps` (list of int64).
        statistics (`dict`): What else to say in `statistics.json` and the card; counts are added here.
        about (`About`): What the card says of the source.

    Raises:
        FileExistsError: if `output` holds something else, or another process is writing it.
        OSError: if the disk is full.
    """
    with replacing_dataset_folder(output) as folder:
        fill_dataset_folder(folder, catalog, lengths, write_sequences, statistics, about)
    return Path(output)


def fill_dataset_folder(
    folder: Path,
    catalog: Catalog,
    lengths: npt.NDArray[np.int64],
    write_sequences: Callable[[Path], None],
    statistics: dict[str, Any],
    about: About,
) -> None:
    """Write the files of a dataset into a folder of its own; the arguments are those of `write_dataset_folder`."""
    catalog.save(folder)
    (folder / SEQUENCES_FOLDER).mkdir()
    write_sequences(folder / SEQUENCES_FOLDER)
    # A dataset that was added to keeps its source, unless something else is said of it.
    source = about.source()
    statistics = count_statistics(lengths, catalog.n_items) | statistics | ({"about": source} if source else {})
    (folder / STATISTICS_FILE).write_text(json.dumps(statistics, indent=2) + "\n", encoding="utf-8")
    has_picture = draw_statistics(lengths, catalog.counts, folder / PICTURE_FILE)
    card = render_card(about, catalog, statistics, has_picture)
    (folder / CARD_FILE).write_text(card, encoding="utf-8")


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
def replacing_dataset_folder(output: str | Path) -> Iterator[Path]:
    """
    Yield a folder that takes the place of `output`, new or an earlier dataset, when the block ends well.

    Raises:
        FileExistsError: if `output` holds anything but a dataset of ours, or another process is writing it.
        OSError: if the disk is full; the message says what is free and what is needed.
    """
    with replacing_folder(output, check_replaceable) as folder, naming_a_full_disk(folder):
        yield folder


@contextmanager
def naming_a_full_disk(folder: Path) -> Iterator[None]:
    """Say of a full disk which one it is, what is free there and what is needed."""
    try:
        yield
    except Exception as error:
        is_full = getattr(error, "errno", None) == errno.ENOSPC or "no space left" in str(error).lower()
        if not is_full and "max_temp_directory_size" not in str(error):
            raise
        disk = shutil.disk_usage(folder.parent)
        raise OSError(
            errno.ENOSPC,
            f"the disk of {folder.parent} is full: {disk.total / 1e9:.2f} GB, of which {disk.free / 1e9:.2f} GB are "
            f"free without this build. A build needs about {_BYTES_PER_EVENT} bytes for each event beside the log. "
            "Free some space or choose an output on another disk.",
        ) from error


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
