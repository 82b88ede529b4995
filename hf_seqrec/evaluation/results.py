"""
What `results.json` holds: one definition, one writer, one reader that checks.

A run writes it at its end, and `hf-seqrec evaluate` with `--output`; cards and tables are made from it. It is shared,
so it names no folder of a machine: see [`without_folders`].
"""

import json
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict, Union, cast, get_args, get_origin, get_type_hints

from ..data.sequences import Sequences

RESULTS_FILE = "results.json"
# How results.json calls the metrics of each part.
PART_PREFIXES = {"validation": "eval", "test": "test"}


class _Device(TypedDict):
    device: str
    threads: int
    processes: int


class Hardware(_Device, total=False):
    """
    On what something ran. Memory is the main process's, in bytes.

    Fields:
        device, name (`str`): `cpu` or `cuda`, and which.
        threads, processes (`int`): Of each process, and how many.
        peak_memory_bytes (`int`): The most it had: on CUDA what was allocated for tensors, on a CPU the resident set.
        peak_reserved_bytes (`int`): On CUDA the most that torch had taken from the driver.
        memory_kind (`str`): What was counted, in words.
    """

    name: str
    peak_memory_bytes: int | None
    peak_reserved_bytes: int | None
    memory_kind: str


class Comparison(TypedDict):
    """
    A model against the best baseline on the same users.

    Fields:
        metric, baseline (`str`): Of what, and the best baseline by it.
        difference (`float`): The model's minus the baseline's.
        interval (`list`): Its 95 % bootstrap interval.
        p_value (`float`): Two-sided, of no difference.
        n_users (`int`): Users whom both ranked.
    """

    metric: str
    baseline: str
    difference: float
    interval: list[float]
    p_value: float
    n_users: int


class _Always(TypedDict):
    model_type: str | None
    dataset: str
    statistics: dict[str, Any]
    protocol: str
    metrics: dict[str, float]
    parameters: int | None
    command: str
    versions: dict[str, str]
    hardware: Hardware
    commit: str | None


class Results(_Always, total=False):
    """
    What was measured, and what it takes to measure it again.

    Fields:
        model_type (`str`): Which system; null where baselines were evaluated alone.
        dataset (`str`): Its name, without folders.
        checkpoint (`str`): What was evaluated, of an evaluation alone.
        statistics (`dict`): Counts of the dataset, its source and filters.
        protocol (`str`): What was held out and how it was ranked, in words.
        rankings (`dict`): The suffix of each ranking's metrics, and the ranking in words.
        split_counts (`dict`): Who takes part, and who is left out.
        metrics (`dict`): `eval_...` of validation, `test_...`.
        baselines (`dict`): The metrics of each baseline, in the same way.
        comparison ([`Comparison`]): The model against the best of the baselines.
        intervals, breakdowns (`dict`): Of the metrics, where they were computed.
        max_length (`int`): Positions of a history.
        epochs (`float`), best_step (`int`): How long was trained, and which checkpoint was the best.
        resumed_from (`str`): The checkpoint that a resumed run went on from; its times are since then.
        changed_on_resume (`list`): What a resumed run did otherwise, each with values before and after.
        train_seconds, evaluation_seconds (`float`): Wall-clock time; of a run's last evaluations of both parts.
        optimizer (`str`), learning_rate (`float`), lr_scheduler (`str`): How was trained; the highest rate.
        batch (`dict`): `histories_per_step`, and the three that multiply to it: `per_device`, `accumulation_steps`,
            `processes`.
        parameters (`int`): Trained or not; null without a model.
        arguments (`dict`), objective (`dict`), seed (`int`), command (`str`): What the run was told.
        versions (`dict`), commit (`str`), hardware ([`Hardware`]): With what it ran.
    """

    checkpoint: str
    rankings: dict[str, str]
    split_counts: dict[str, int]
    baselines: dict[str, dict[str, float]]
    comparison: Comparison
    intervals: dict[str, list[float]]
    breakdowns: dict[str, Any]
    max_length: int
    epochs: float | None
    best_step: int | None
    resumed_from: str | bool | None
    changed_on_resume: list[dict[str, Any]]
    train_seconds: float | None
    evaluation_seconds: float | None
    optimizer: str
    learning_rate: float
    lr_scheduler: str
    batch: dict[str, int]
    arguments: dict[str, Any]
    objective: dict[str, Any]
    seed: int


def write_results(path: str | Path, results: Results) -> Path:
    """
    Write results as JSON, and return the file.

    Raises:
        ValueError: if they are not [`Results`].
    """
    path = Path(path)
    check_results(results, "`results`")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return path


def read_results(path: str | Path) -> Results:
    """
    Read a file of results.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is no JSON, or holds something else.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON, or cut short: {error}") from error
    return check_results(found, str(path))


def check_results(found: Any, name: str) -> Results:
    """Return what are [`Results`], and raise a `ValueError` that says what about others is not."""
    wrong = _mistakes(found, Results) if isinstance(found, dict) else [f"a {type(found).__name__}, no mapping"]
    if wrong:
        raise ValueError(
            f"{name} does not hold results: {', '.join(wrong[:5])}. Take the `{RESULTS_FILE}` of a run, or what "
            "`hf-seqrec evaluate --output` wrote."
        )
    return cast(Results, found)


def without_folders(text: str) -> str:
    """Return a path without the folders of a machine: its last part if it is absolute, and as it is if not."""
    path = Path(text)
    return path.name if path.is_absolute() else text


def dataset_name(dataset: str) -> str:
    """Return what a dataset is called in what is shared: the id of one of the Hub, of a file or folder its name."""
    path = Path(dataset)
    return path.name if path.is_absolute() or path.exists() else dataset


def dataset_statistics(sequences: Sequences) -> dict[str, Any]:
    """Return what `statistics` holds: the statistics of the dataset's folder, and at least its counts."""
    counts = {name: getattr(sequences, name) for name in ("n_users", "n_items", "n_interactions")}
    return counts | sequences.statistics


def _mistakes(found: Mapping[str, Any], wanted: Any) -> list[str]:
    """Say which fields of a `TypedDict` are missing, unknown or of another type."""
    hints = get_type_hints(wanted)
    missing = [f"{name} is missing" for name in sorted(wanted.__required_keys__ - found.keys())]
    unknown = [f"{name} is unknown" for name in sorted(found.keys() - hints.keys())]
    mistyped = [
        f"{name} is a {type(found[name]).__name__}"
        for name, hint in hints.items()
        if name in found and not _is_a(found[name], hint)
    ]
    return missing + unknown + mistyped


def _is_a(value: Any, hint: Any) -> bool:
    """Tell whether a value of JSON is of a type; what containers hold is looked into as far as it is said."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(_is_a(value, argument) for argument in arguments)
    if hasattr(hint, "__required_keys__"):
        return isinstance(value, dict) and not _mistakes(value, hint)
    if origin is dict:
        return isinstance(value, dict) and all(_is_a(inner, arguments[1]) for inner in value.values())
    if origin is list:
        return isinstance(value, list) and all(_is_a(inner, arguments[0]) for inner in value)
    if hint is float:
        return isinstance(value, float | int) and not isinstance(value, bool)
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool))
