"""Evaluate a checkpoint on a dataset: metrics with intervals, for groups of users, and what is recommended."""

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from transformers.utils import logging

from ..baselines import BASELINES
from ..data.catalog import Catalog, check_catalog_fits
from ..data.histories import HistoryDataset
from ..data.leave_one_out import leave_one_out
from ..data.sequences import Sequences
from ..data.splits import Splits
from ..metrics.ranking import CUT_OFFS
from ..models.modeling_seqrec import SeqRecPreTrainedModel
from .environment import command, commit, hardware, versions
from .evaluate_baselines import baseline_names, compare_with_best, rank_baselines
from .matched_view import MatchedView, match_catalog, model_rows
from .protocol import RankingArguments
from .rank_users import describe, largest_cut_off, rank_users
from .results import PART_PREFIXES, Results, dataset_statistics

logger = logging.get_logger(__name__)
# What the protocol says about users whom the checkpoint cannot rank.
_UNKNOWN = {
    "exclude": "users whose target or whole history the checkpoint does not know are left out",
    "miss": "users whose target or whole history the checkpoint does not know count as missed",
}


@dataclass
class EvaluationArguments(RankingArguments):
    """How to evaluate."""

    parts: list[str] = field(
        default_factory=lambda: ["validation", "test"], metadata={"help": "Parts to evaluate: validation, test."}
    )
    unknown_items: str = field(
        default="exclude",
        metadata={
            "help": "Users whose target, or all of whose history, the checkpoint does not know: leave them out "
            "(`exclude`), or count their targets as missed (`miss`). They are counted either way.",
            "choices": ["exclude", "miss"],
        },
    )
    k: list[int] = field(default_factory=lambda: list(CUT_OFFS), metadata={"help": "Cut-offs."})
    length_edges: list[int] | None = field(
        default=None, metadata={"help": "History lengths at which a new group begins; by default the quartiles."}
    )
    baselines: list[str] | None = field(
        default=None,
        metadata={"help": "Baselines to evaluate beside the model, or `all`: " + ", ".join(BASELINES) + "."},
    )
    n_resamples: int = field(default=1000, metadata={"help": "Resamples of the bootstrap intervals."})
    max_length: int | None = field(
        default=None,
        metadata={
            "help": "Positions of a history, the most recent; by default those the checkpoint was trained with."
        },
    )
    batch_size: int = field(default=256, metadata={"help": "Users at once."})
    device: str | None = field(default=None, metadata={"help": "Such as `cpu` or `cuda:0`; by default the best here."})

    def __post_init__(self) -> None:
        wrong = [part for part in self.parts if part not in PART_PREFIXES]
        if wrong or not self.parts:
            raise ValueError(f"`parts` must be among {', '.join(PART_PREFIXES)}, got {', '.join(wrong) or 'none'}.")
        if self.baselines is not None:
            baseline_names(self.baselines)
        if self.unknown_items not in ("exclude", "miss"):
            raise ValueError(f"`unknown_items` must be 'exclude' or 'miss', got {self.unknown_items!r}.")
        for name in ("batch_size", "n_resamples", "max_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        if not self.k or min(self.k) < 1:
            raise ValueError(f"`k` must be cut-offs of at least 1, got {self.k}.")


def evaluate_checkpoint(
    model: SeqRecPreTrainedModel,
    catalog: Catalog,
    sequences: Sequences,
    splits: Splits | None = None,
    arguments: EvaluationArguments | None = None,
    dataset: str = "",
) -> Results:
    r"""
    Evaluate a checkpoint on a dataset; the answer has the fields of a run's `results.json` where they overlap.

    Args:
        model ([`SeqRecPreTrainedModel`]): A model. It is moved to the device of `arguments`.
        catalog ([`Catalog`]): What its rows stand for.
        sequences ([`Sequences`]): Histories in the rows of their own catalog.
        splits ([`LeaveOneOut`] or [`GlobalTimeSplit`], *optional*): What of the histories is held out;
            `leave_one_out(sequences)` by default.
        arguments ([`EvaluationArguments`], *optional*): How to evaluate.
        dataset (`str`, *optional*): Name of the dataset in the results.

    Raises:
        ValueError: if the checkpoint's catalog is not its model's, the catalogs share no item, no user can be
            evaluated, a cut-off is beyond the catalog, scores are NaN or infinite, or there are too few items for the
            negatives.

    Example:

    ```python
    >>> results = evaluate_checkpoint(*load_checkpoint("runs/ml-1m"), load_sequences("data/ml-1m"))
    >>> results["metrics"]["test_ndcg@10"]
    ```
    """
    check_catalog_fits(model.config, catalog)
    splits = leave_one_out(sequences) if splits is None else splits
    arguments = arguments or EvaluationArguments()
    _check_cut_offs(arguments, catalog.n_items)
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)  # type: ignore[arg-type]
    items = _match_items(sequences.catalog, catalog, splits.train.item_counts())
    began = time.perf_counter()
    parts = {part: _evaluate_part(model, getattr(splits, part), items, arguments) for part in arguments.parts}
    seconds = time.perf_counter() - began
    results = _results(model, sequences, splits, items, parts, arguments, dataset, seconds)
    if arguments.baselines is not None:
        _add_baselines(results, splits, items, parts, arguments)
    return results


class _Items(NamedTuple):
    """
    The items of a dataset, and of a checkpoint.

    Fields:
        catalog: The checkpoint's.
        rows: The checkpoint's row of each row of the dataset, 0 where it has none.
        counts, model_counts: Training events of each row, of the dataset's and of the checkpoint's catalog.
    """

    catalog: Catalog
    rows: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    model_counts: npt.NDArray[np.int64]

    @property
    def n_unknown(self) -> int:
        """How many items of the dataset the checkpoint does not know."""
        return int((self.rows[1:] == 0).sum())


def _match_items(dataset: Catalog, catalog: Catalog, counts: npt.NDArray[np.int64]) -> _Items:
    rows = model_rows(dataset, catalog)
    model_counts = np.bincount(rows, weights=counts, minlength=catalog.vocab_size).astype(np.int64)
    # Row 0 collected what the model does not know.
    model_counts[0] = 0
    return _Items(catalog, rows, counts, model_counts)


class _Part(NamedTuple):
    """What was measured of validation or test: who took part, their ranks by the first ranking, and a description."""

    matched: MatchedView
    ranks: npt.NDArray[np.int64]
    described: dict[str, Any]


def _evaluate_part(
    model: SeqRecPreTrainedModel, view: HistoryDataset, items: _Items, arguments: EvaluationArguments
) -> _Part:
    """Rank the users of one part, and describe the ranks."""
    matched = match_catalog(view, items.rows, items.catalog)
    ranked = rank_users(
        model,
        matched.view,
        arguments.protocol,
        items.model_counts,
        arguments.max_length or _trained_length(model),
        arguments.batch_size,
        top_k=largest_cut_off(arguments.k, items.catalog.n_items),
        show_progress=sys.stderr.isatty(),
    )
    described = describe(
        ranked,
        arguments.protocol,
        view,
        matched.is_ranked,
        items.counts,
        items.model_counts,
        arguments.unknown_items == "miss",
        arguments.k,
        arguments.length_edges,
        arguments.n_resamples,
    )
    return _Part(matched, ranked.ranks[0], described)


def _results(
    model: SeqRecPreTrainedModel,
    sequences: Sequences,
    splits: Splits,
    items: _Items,
    parts: dict[str, _Part],
    arguments: EvaluationArguments,
    dataset: str,
    seconds: float,
) -> Results:
    """Put together what was measured, and what it takes to measure it again."""
    counts = dict(splits.counts) | {"items that the checkpoint does not know": items.n_unknown}
    protocol = f"{splits.protocol}, {arguments.protocol.description}"
    if items.n_unknown:
        protocol += f"; {_UNKNOWN[arguments.unknown_items]}"
        for part, evaluated in parts.items():
            counts |= _unknown_counts(part, evaluated.matched)
    return {
        "model_type": model.config.model_type,
        "dataset": dataset,
        "statistics": dataset_statistics(sequences),
        "protocol": protocol,
        "rankings": arguments.protocol.rankings,
        "split_counts": counts,
        "max_length": arguments.max_length or _trained_length(model),
        "metrics": _with_prefixes(parts, "metrics"),
        "intervals": _with_prefixes(parts, "intervals"),
        "breakdowns": {PART_PREFIXES[part]: found.described["breakdowns"] for part, found in parts.items()},
        "evaluation_seconds": seconds,
        "parameters": model.num_parameters(),
        "command": command(sys.argv),
        "versions": versions(),
        "commit": commit(),
        "hardware": hardware(model.device),
    }


def _add_baselines(
    results: Results, splits: Splits, items: _Items, parts: dict[str, _Part], arguments: EvaluationArguments
) -> None:
    """Evaluate baselines on the users that the model is measured on, and compare it with the best of them."""
    assert arguments.baselines is not None  # otherwise there is nothing to add
    views = {part: getattr(splits, part) for part in parts}
    if arguments.unknown_items == "exclude":
        views = {part: _some_users(view, parts[part].matched.is_ranked) for part, view in views.items()}
    ranked = rank_baselines(
        arguments.baselines, splits.train, views, arguments.protocol, arguments.k, sys.stderr.isatty()
    )
    results["baselines"] = {name: baseline.metrics for name, baseline in ranked.items()}
    if items.n_unknown or items.catalog.vocab_size != len(items.rows):
        logger.warning(
            f"The model is not compared with the best baseline: it ranks the {items.catalog.n_items:,} items of its "
            f"own catalog, and the baselines rank the {len(items.rows) - 1:,} of the dataset."
        )
    elif "test" in parts and ranked:
        results["comparison"] = compare_with_best(parts["test"].ranks, ranked, arguments.protocol)


def _some_users(view: HistoryDataset, is_taken: npt.NDArray[np.bool_]) -> HistoryDataset:
    taken = (view.users[is_taken], view.starts[is_taken], view.stops[is_taken])
    return HistoryDataset(view.sequences, *taken, has_targets=True)


def _with_prefixes(parts: dict[str, _Part], what: str) -> dict[str, Any]:
    return {
        f"{PART_PREFIXES[part]}_{name}": value
        for part, evaluated in parts.items()
        for name, value in evaluated.described[what].items()
    }


def _unknown_counts(part: str, matched: MatchedView) -> dict[str, int]:
    return {
        f"{part}: users with an unknown target": matched.n_unknown_targets,
        f"{part}: users with a history of unknown items only": matched.n_unknown_histories,
        f"{part}: unknown events left out of histories": matched.n_unknown_events,
    }


def _check_cut_offs(arguments: EvaluationArguments, n_items: int) -> None:
    # The usual ones are kept, so that results of any catalog have the same names.
    n_candidates = min(n_items, arguments.eval_negatives + 1) if arguments.protocol.is_sampled else n_items
    if tuple(arguments.k) != CUT_OFFS and max(arguments.k) > n_candidates:
        raise ValueError(
            f"`k` must be at most the {n_candidates:,} items that are ranked, got {max(arguments.k)}: every user "
            "would have a hit. Lower `--k`."
        )


def _trained_length(model: Any) -> int:
    """Return the length of the histories that a checkpoint was trained with, or the most that it can take, or 200."""
    path = Path(model.name_or_path) / "training_args.json"
    if path.is_file():
        return int(json.loads(path.read_text(encoding="utf-8"))["max_length"])
    return model.config.max_position_embeddings or 200
