"""Evaluate a checkpoint on a dataset: metrics with intervals, for groups of users, and what is recommended."""

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..checkpoints.load import Checkpoint
from ..data.catalog import check_catalog_fits
from ..data.sequences import Sequences
from ..ingest.open_dataset import DataArguments
from ..metrics.ranking import CUT_OFFS
from .environment import command, commit, hardware, versions
from .matched_view import match_catalog, model_rows
from .protocol import RankingArguments
from .rank_users import describe, rank_users
from .results import Results, dataset_name

# How results.json calls the metrics of each part.
_PREFIXES = {"validation": "eval", "test": "test"}


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
        wrong = [part for part in self.parts if part not in _PREFIXES]
        if wrong or not self.parts:
            raise ValueError(f"`parts` must be among {', '.join(_PREFIXES)}, got {', '.join(wrong) or 'none'}.")
        if self.unknown_items not in ("exclude", "miss"):
            raise ValueError(f"`unknown_items` must be 'exclude' or 'miss', got {self.unknown_items!r}.")
        for name in ("batch_size", "n_resamples", "max_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        if not self.k or min(self.k) < 1:
            raise ValueError(f"`k` must be cut-offs of at least 1, got {self.k}.")


def evaluate_checkpoint(
    checkpoint: Checkpoint, sequences: Sequences, data: DataArguments, arguments: EvaluationArguments
) -> Results:
    r"""
    Evaluate a checkpoint on a dataset; the answer has the fields of a run's `results.json` where they overlap.

    Args:
        checkpoint ([`Checkpoint`]): A model and its catalog.
        sequences ([`Sequences`]): Histories in the rows of their own catalog.
        data ([`DataArguments`]): What is held out, and what the dataset is called.
        arguments ([`EvaluationArguments`]): How to evaluate.

    Raises:
        ValueError: if the checkpoint's catalog is not its model's, the catalogs share no item, no user can be
            evaluated, a cut-off is beyond the catalog, scores are NaN or infinite, or there are too few items for the
            negatives.
    """
    model, catalog = checkpoint
    check_catalog_fits(model.config, catalog)
    protocol = arguments.protocol
    _check_cut_offs(arguments, catalog.n_items)
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)  # type: ignore[arg-type]
    max_length = arguments.max_length or _trained_length(model)
    rows = model_rows(sequences.catalog, catalog)
    splits = data.cut(sequences)
    item_counts = splits.train.item_counts()
    model_item_counts = np.bincount(rows, weights=item_counts, minlength=catalog.vocab_size).astype(np.int64)
    # Row 0 collected what the model does not know.
    model_item_counts[0] = 0

    n_unknown = int((rows[1:] == 0).sum())
    counts = dict(splits.counts) | {"items that the checkpoint does not know": n_unknown}
    measured: dict[str, dict[str, Any]] = {"metrics": {}, "intervals": {}, "breakdowns": {}}
    began = time.perf_counter()
    for part in arguments.parts:
        view = getattr(splits, part)
        matched = match_catalog(view, rows, catalog)
        if n_unknown:
            counts |= {
                f"{part}: users with an unknown target": matched.n_unknown_targets,
                f"{part}: users with a history of unknown items only": matched.n_unknown_histories,
                f"{part}: unknown events left out of histories": matched.n_unknown_events,
            }
        ranked = rank_users(
            model,
            matched.view,
            protocol,
            model_item_counts,
            max_length,
            arguments.batch_size,
            top_k=max(cut_off for cut_off in [1, *arguments.k] if cut_off <= catalog.n_items),
            show_progress=sys.stderr.isatty(),
        )
        described = describe(
            ranked,
            protocol,
            view,
            matched.is_ranked,
            item_counts,
            model_item_counts,
            arguments.unknown_items == "miss",
            arguments.k,
            arguments.length_edges,
            arguments.n_resamples,
        )
        for name in ("metrics", "intervals"):
            measured[name] |= {f"{_PREFIXES[part]}_{metric}": value for metric, value in described[name].items()}
        measured["breakdowns"][_PREFIXES[part]] = described["breakdowns"]
    unknown = {
        "exclude": "users whose target or whole history the checkpoint does not know are left out",
        "miss": "users whose target or whole history the checkpoint does not know count as missed",
    }
    return {
        "model_type": model.config.model_type,
        "dataset": dataset_name(data.dataset),
        "statistics": {
            "n_users": sequences.n_users,
            "n_items": sequences.n_items,
            "n_interactions": sequences.n_interactions,
        }
        | sequences.statistics,
        "protocol": "; ".join(
            [splits.protocol + ", " + protocol.description, *([unknown[arguments.unknown_items]] if n_unknown else [])]
        ),
        "rankings": protocol.rankings,
        "split_counts": counts,
        "max_length": max_length,
        "metrics": measured["metrics"],
        "intervals": measured["intervals"],
        "breakdowns": measured["breakdowns"],
        "evaluation_seconds": time.perf_counter() - began,
        "parameters": model.num_parameters(),
        "command": command(sys.argv),
        "versions": versions(),
        "commit": commit(),
        "hardware": hardware(model.device),
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
