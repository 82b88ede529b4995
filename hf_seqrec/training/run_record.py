"""
What a run's `run.json` records: what it trains, on which data, and what was changed when it was resumed.

Each argument says for itself whether a resumed run may change it, with an [`OnResume`] beside its type:
`loss: Annotated[str, OnResume.SAME]`. `HfArgumentParser` hands the metadata of a field to `argparse`, which knows no
such word, so it does not stand there.
"""

import json
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from ..data.catalog import CATALOG_FILE, Catalog
from ..data.histories import HistoryDataset
from ..data.streaming import StreamedHistories

RUN_FILE = "run.json"


class OnResume(Enum):
    """What becomes of an argument in a resumed run; one without it changes nothing that is learned."""

    SAME = "another value is refused"
    RECORDED = "another value is recorded"


class RunIdentity(NamedTuple):
    """
    What a run trains, as JSON.

    Fields:
        same: Arguments and fields of the network that a resumed run must share.
        recorded: Arguments that it may change; `results.json` says from which checkpoint on.
    """

    same: dict[str, Any]
    recorded: dict[str, Any]


def marked_fields(arguments: Any, mark: OnResume) -> dict[str, Any]:
    """Return the values of a dataclass's fields that have this mark, by name."""
    hints = get_type_hints(type(arguments), include_extras=True)
    names = [name for name, hint in hints.items() if mark in getattr(hint, "__metadata__", ())]
    return {name: _plain(getattr(arguments, name)) for name in names}


def data_identity(catalog: Catalog, train: Any, evaluation: HistoryDataset, protocol: str) -> dict[str, Any]:
    r"""
    Return what tells the data of a run from others; hashing a billion events takes some seconds.

    Args:
        catalog ([`Catalog`]): What the rows stand for.
        train ([`HistoryDataset`] or [`StreamedHistories`]): What is trained on.
        evaluation ([`HistoryDataset`]): What the best checkpoint is chosen by.
        protocol (`str`): What is held out.
    """
    found = {
        "items": catalog.n_items,
        "catalog": catalog.fingerprint(),
        "training events": int(train.item_counts().sum()),
        "training histories": train.fingerprint(),
        "evaluation histories": evaluation.fingerprint(),
        "held out": protocol,
    }
    if isinstance(train, StreamedHistories):
        # They share out the histories, so the order depends on how many they are.
        found["processes and their workers"] = f"{train.world_size} x {train.n_workers}"
    return found


def read_run(folder: str | Path) -> dict[str, Any] | None:
    """
    Return what `run.json` records, or `None` where it is missing or cut short.

    Keys: `same` and `recorded` of the [`RunIdentity`], `data` of [`data_identity`] once they are loaded, and
    `changes`. Earlier versions wrote one flat mapping of what had to be the same.
    """
    run = read_json(Path(folder) / RUN_FILE)
    if run is not None and "same" not in run:
        return {"same": run, "recorded": {}, "changes": []}
    return run


def write_run(folder: str | Path, run: dict[str, Any]) -> None:
    """Write `run.json`."""
    (Path(folder) / RUN_FILE).write_text(json.dumps(run, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the content of a JSON file, or `None` where it is missing or cut short."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None


def differences(earlier: dict[str, Any], now: dict[str, Any]) -> dict[str, list[Any]]:
    """Return the values before and now of what both know and differ in, by name."""
    return {name: [earlier[name], now[name]] for name in now if name in earlier and earlier[name] != now[name]}


def recorded_data(checkpoint: str | Path) -> dict[str, Any]:
    """Return what the run of a checkpoint was trained on: its record, or the catalog beside the weights at least."""
    run = read_run(Path(checkpoint).parent) or {}
    if run.get("data"):
        return run["data"]
    if not Path(checkpoint, CATALOG_FILE).is_file():
        return {}
    catalog = Catalog.from_pretrained(checkpoint)
    return {"items": catalog.n_items, "catalog": catalog.fingerprint()}


def record_data(output_dir: str | Path, found: dict[str, Any]) -> None:
    """Add the data to the record of a run, where its folder has one."""
    run = read_run(output_dir)
    if run is not None:
        write_run(output_dir, run | {"data": found})


def check_same_data(checkpoint: str | Path, recorded: dict[str, Any], found: dict[str, Any]) -> None:
    r"""
    Do nothing where a checkpoint is resumed with the data that it was trained on.

    Args:
        checkpoint (`str`): The checkpoint to go on from.
        recorded (`dict[str, Any]`): What it was trained on, see [`recorded_data`].
        found (`dict[str, Any]`): What [`data_identity`] says of the data that are there now.

    Raises:
        ValueError: if they differ: rows would stand for other items, or the rest of the epochs for other histories.
    """
    differing = differences(recorded, found)
    if not differing:
        return
    shown = ", ".join(f"{name}: {before} there, {now} here" for name, (before, now) in differing.items())
    folder = Path(checkpoint)
    built = folder.parent / "dataset"
    as_they_were = f" (`--dataset {built}` has them)" if built.is_dir() else ""
    raise ValueError(
        f"`resume_from_checkpoint` must come with the data that {folder} was trained on, but they have changed "
        f"({shown}). Resume with the data as they were{as_they_were}, or train on with these in a new `--output_dir` "
        f"with `--model_name_or_path {folder}`, which finds items by their raw id; `hf-seqrec extend` adds a log to a "
        "dataset and keeps its rows."
    )


def _plain(value: Any) -> Any:
    """Return a value as JSON gives it back."""
    return json.loads(json.dumps(value.value if isinstance(value, Enum) else value, default=str))
