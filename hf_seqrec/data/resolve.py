"""From what a user writes after `--dataset` to a dataset folder, and to sequences in memory."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from .build import build_dataset
from .interactions import InteractionsArguments
from .raw_files import ENDINGS
from .sequences import STATISTICS_FILE, Sequences, is_dataset_folder, load_sequences
from .synthetic import build_synthetic

SYNTHETIC = "synthetic"
# Raise when the same log and arguments give another folder than before.
_BUILD_VERSION = 3


def resolve_dataset(
    name_or_path: str | Path, output_dir: str | Path, timestamps: bool = False, **options: Any
) -> Sequences:
    r"""
    Load a dataset, building it first where it is a log.

    Args:
        name_or_path (`str`):
            `"synthetic"`, a dataset folder, the id of a dataset on the Hub, or a file of interactions.
        output_dir (`str`):
            The run's folder. What is built goes into its `dataset/`, and is used again when the same log is asked for
            with the same options. With several processes let the main one go first.
        timestamps (`bool`, *optional*, defaults to `False`):
            Whether to read the timestamps too.
        options:
            Fields of `InteractionsArguments`, for a file of interactions. `None` means the default.

    Raises:
        FileNotFoundError: if it is none of these.
        ValueError: if options are given for something that is already a dataset, or the log is malformed.

    Example:

    ```python
    >>> resolve_dataset("ml-1m.inter", "runs/ml-1m", min_user_events=5)
    6,040 users / 3,416 items / 999,611 interactions
    ```
    """
    folder = resolve_folder(name_or_path, output_dir, **options)
    try:
        return load_sequences(folder, timestamps=timestamps)
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'`dataset` must be "{SYNTHETIC}", a dataset folder, the id of a dataset on the Hub, or a file of '
            f"interactions ({', '.join(ENDINGS)}), got {str(name_or_path)!r}. {error}"
        ) from error


def resolve_folder(name_or_path: str | Path, output_dir: str | Path, **options: Any) -> str:
    """Return the folder of a dataset (built first where it is a log) or its id on the Hub; see [`resolve_dataset`]."""
    options = {name: value for name, value in options.items() if value is not None}
    path, built = Path(name_or_path), Path(output_dir) / "dataset"
    if path.is_file():
        return _from_log(path, built, InteractionsArguments(**options))
    if options:
        raise ValueError(
            f"`{'`, `'.join(options)}` must be left out unless the dataset is a file of interactions; {name_or_path} "
            f"is none."
        )
    if str(name_or_path) == SYNTHETIC:
        fingerprint = _fingerprint(SYNTHETIC)
        if not _was_built(built, fingerprint):
            build_synthetic(built, fingerprint=fingerprint)
        return str(built)
    if path.suffix.lower() in ENDINGS:
        raise FileNotFoundError(f"`dataset` must be a file of interactions that exists, there is none at {path}.")
    return str(name_or_path)


def _from_log(log: Path, built: Path, arguments: InteractionsArguments) -> str:
    items = Path(arguments.items) if arguments.items else log.with_suffix(".item")
    fingerprint = _fingerprint(dataclasses.asdict(arguments), _state(log), _state(items))
    if not _was_built(built, fingerprint):
        build_dataset(log, built, arguments, fingerprint=fingerprint)
    return str(built)


def _fingerprint(*parts: Any) -> str:
    return hashlib.sha256(json.dumps([_BUILD_VERSION, *parts]).encode()).hexdigest()[:16]


def _state(path: Path) -> list[Any] | None:
    """What changes when a file does."""
    if not path.is_file():
        return None
    status = path.stat()
    return [path.name, status.st_size, status.st_mtime_ns]


def _was_built(folder: Path, fingerprint: str) -> bool:
    if not is_dataset_folder(folder):
        return False
    statistics = json.loads((folder / STATISTICS_FILE).read_text(encoding="utf-8"))
    return statistics.get("fingerprint") == fingerprint
