"""From what a user writes after `--dataset` to a dataset folder, and to sequences in memory."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.catalog import CATALOG_FILE
from ..data.global_time_split import GlobalTimeSplit, global_time_split
from ..data.leave_one_out import LeaveOneOut, leave_one_out
from ..data.sequences import STATISTICS_FILE, Sequences, fetch_dataset, is_dataset_folder, load_sequences
from .build import build_dataset
from .log_files import ENDINGS, RawFile
from .read_log import InteractionsArguments, choose_columns
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
        raise _no_dataset(name_or_path, error) from error


def check_dataset(name_or_path: str | Path, **options: Any) -> None:
    """
    Raise where a dataset is not there or does not look like one, before anything is built or written for it.

    Of a log the header is read, of a dataset on the Hub the catalog is fetched. Arguments as in [`resolve_dataset`].

    Raises:
        FileNotFoundError: if it is none of what [`resolve_dataset`] takes.
        ValueError: if options are given for something that is already a dataset, or a log lacks a column.
    """
    options = {name: value for name, value in options.items() if value is not None}
    path = Path(name_or_path)
    if path.is_file():
        arguments = InteractionsArguments(**options)
        choose_columns(RawFile.open(path), arguments)
        return
    _check_no_log(name_or_path, options)
    if str(name_or_path) == SYNTHETIC:
        return
    try:
        folder = path if path.is_dir() else fetch_dataset(str(name_or_path), None, [CATALOG_FILE])
    except FileNotFoundError as error:
        raise _no_dataset(name_or_path, error) from error
    # Its sequences are fetched later.
    is_dataset = is_dataset_folder(folder) if path.is_dir() else (folder / CATALOG_FILE).is_file()
    if not is_dataset:
        raise _no_dataset(name_or_path, "It has no catalog.parquet with sequences/*.parquet.")


def _no_dataset(name_or_path: str | Path, reason: object) -> FileNotFoundError:
    return FileNotFoundError(
        f'`dataset` must be "{SYNTHETIC}", a dataset folder, the id of a dataset on the Hub, or a file of '
        f"interactions ({', '.join(ENDINGS)}), got {str(name_or_path)!r}. {reason}"
    )


def _check_no_log(name_or_path: str | Path, options: dict[str, Any]) -> None:
    """Refuse what only a log could have: options for reading it, or its ending."""
    if options:
        raise ValueError(
            f"`{'`, `'.join(options)}` must be left out unless the dataset is a file of interactions; {name_or_path} "
            f"is none."
        )
    if Path(name_or_path).suffix.lower() in ENDINGS:
        raise FileNotFoundError(
            f"`dataset` must be a file of interactions that exists, there is none at {name_or_path}."
        )


def resolve_folder(
    name_or_path: str | Path, output_dir: str | Path, check: Callable[[Path], None] | None = None, **options: Any
) -> str:
    r"""
    Return the folder of a dataset (built first where it is a log) or its id on the Hub.

    Args:
        name_or_path, output_dir, options: See [`resolve_dataset`].
        check (`Callable[[Path], None]`, *optional*): Is given the folder that is built from a log before it takes the
            place of an earlier one; what it raises leaves that as it was.
    """
    options = {name: value for name, value in options.items() if value is not None}
    path, built = Path(name_or_path), Path(output_dir) / "dataset"
    if path.is_file():
        return _from_log(path, built, InteractionsArguments(**options), check)
    _check_no_log(name_or_path, options)
    if str(name_or_path) == SYNTHETIC:
        fingerprint = _fingerprint(SYNTHETIC)
        if not _was_built(built, fingerprint):
            build_synthetic(built, fingerprint=fingerprint)
        return str(built)
    return str(name_or_path)


def _from_log(log: Path, built: Path, arguments: InteractionsArguments, check: Callable[[Path], None] | None) -> str:
    items = Path(arguments.items) if arguments.items else log.with_suffix(".item")
    fingerprint = _fingerprint(dataclasses.asdict(arguments), _state(log), _state(items))
    if not _was_built(built, fingerprint):
        build_dataset(log, built, arguments, fingerprint=fingerprint, check=check)
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


@dataclass
class DataArguments(InteractionsArguments):
    """
    Which histories to train on, and what of them is held out.

    The fields of [`InteractionsArguments`] are for a file of interactions, which is built on the fly.
    """

    dataset: str = field(
        default="synthetic",
        metadata={
            "help": "`synthetic`, a dataset folder (see `hf-seqrec build`), the id of one on the Hub, or a file of "
            "interactions (.inter, .csv, .tsv, .jsonl, .parquet)."
        },
    )
    split: str = field(
        default="leave_one_out",
        metadata={
            "help": "What is held out: each user's last two events (`leave_one_out`), or what comes after two moments "
            "that are the same for all users (`global_time`).",
            "choices": ["leave_one_out", "global_time"],
        },
    )
    validation_from: str | None = field(
        default=None,
        metadata={
            "help": "`global_time`: where training ends. A date (UTC), a timestamp, or the share of the events before "
            "it (default: 0.8)."
        },
    )
    test_from: str | None = field(
        default=None, metadata={"help": "`global_time`: where validation ends, in the same way (default: 0.9)."}
    )
    keep_cold_targets: bool = field(
        default=False, metadata={"help": "`global_time`: rank items too that nobody had before `validation_from`."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.split not in ("leave_one_out", "global_time"):
            raise ValueError(f"`split` must be 'leave_one_out' or 'global_time', got {self.split!r}.")
        asked = [name for name in ("validation_from", "test_from") if getattr(self, name) is not None]
        asked += ["keep_cold_targets"] if self.keep_cold_targets else []
        if asked and self.split != "global_time":
            raise ValueError(f"`{'`, `'.join(asked)}` must come with `--split global_time`, got {self.split!r}.")

    def cut(self, sequences: Sequences) -> LeaveOneOut | GlobalTimeSplit:
        """Return what to train on, validate on and test on."""
        if self.split == "leave_one_out":
            return leave_one_out(sequences)
        cuts = {name: getattr(self, name) for name in ("validation_from", "test_from")}
        given = {name: cut for name, cut in cuts.items() if cut is not None}
        return global_time_split(sequences, keep_cold_targets=self.keep_cold_targets, **given)

    def log_options(self) -> dict[str, Any]:
        """Return what was asked for beyond the defaults of [`InteractionsArguments`]."""
        defaults = dataclasses.asdict(InteractionsArguments())
        return {name: getattr(self, name) for name, default in defaults.items() if getattr(self, name) != default}
