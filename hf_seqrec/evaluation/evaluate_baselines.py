"""
Evaluate what counts instead of learning: the metrics of baselines beside a model's, and whether the model is better.

    names -> fit_baseline -> rank_users -> metrics, compare_with_best
"""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy.typing as npt
import torch
from transformers.utils import logging

from ..baselines import BASELINES, fit_baseline
from ..baselines.baseline import BaselineLimitError
from ..data.histories import HistoryDataset
from ..data.sequences import Sequences
from ..data.splits import Splits
from ..metrics.bootstrap import paired_bootstrap
from ..metrics.ranking import CUT_OFFS, ndcg
from .environment import command, commit, hardware, versions
from .protocol import EvaluationProtocol
from .rank_users import largest_cut_off, metrics_of_users, rank_users
from .results import PART_PREFIXES, Comparison, Results, dataset_statistics

ALL = "all"
# What rules do in about a minute: they were fitted to ML-1M's 1,000,000 events in 1.2 s, and ranked 22,363 users of
# Beauty in 12,102 rows, which are 270,000,000 scores, in 1.3 s.
_QUICK_EVENTS = 20_000_000
_QUICK_SCORES = 5_000_000_000

logger = logging.get_logger(__name__)


class RankedBaseline(NamedTuple):
    """
    What a baseline made of the parts that it was evaluated on.

    Fields:
        metrics: `eval_...` of validation and `test_...`, as a model has them; there is no loss.
        ranks: The ranks of the targets of each part, one `(n,)` for each ranking of the protocol.
    """

    metrics: dict[str, float]
    ranks: dict[str, list[npt.NDArray[Any]]]


def baseline_names(names: str | Sequence[str]) -> list[str]:
    """
    Return the names of baselines, all of them for `"all"`.

    Raises:
        ValueError: if there is no such baseline, or no name.
    """
    names = [names] if isinstance(names, str) else list(names)
    wrong = [name for name in names if name not in (ALL, *BASELINES)]
    if wrong or not names:
        raise ValueError(
            f"`baselines` must be `{ALL}` or among {', '.join(BASELINES)}, got {', '.join(wrong) or 'none'}."
        )
    return list(BASELINES) if ALL in names else list(dict.fromkeys(names))


def evaluate_baselines(
    names: str | Sequence[str],
    splits: Splits,
    protocol: EvaluationProtocol | None = None,
    parts: Sequence[str] = ("validation", "test"),
    k: Sequence[int] = CUT_OFFS,
    show_progress: bool = False,
) -> dict[str, dict[str, float]]:
    r"""
    Return the metrics of each baseline, named as a model's: `eval_...` of validation and `test_...`.

    Baselines are fitted on the training view alone. With `"all"`, a baseline for which the catalog is too large is
    left out, and a log line says why.

    Args:
        names (`str` or sequence of `str`): Names of baselines, or `"all"`.
        splits ([`LeaveOneOut`], [`GlobalTimeSplit`] or [`StreamedLeaveOneOut`]): What of the histories is held out.
            Streamed training histories are read whole.
        protocol ([`EvaluationProtocol`], *optional*): How targets are ranked; full ranking by default.
        parts (sequence of `str`, *optional*): `"validation"`, `"test"`.
        k (sequence of `int`, *optional*, defaults to `(1, 5, 10, 20)`): Cut-offs.
        show_progress (`bool`, *optional*, defaults to `False`): Whether to show a progress bar.

    Raises:
        ValueError: if there is no such baseline, the catalog is too large for one that was named, or a user has fewer
            items left than the protocol wants negatives.

    Example:

    ```python
    >>> metrics = evaluate_baselines("all", leave_one_out("data/ml-1m"))
    >>> metrics["rules"]["test_ndcg@10"]
    ```
    """
    views = {part: getattr(splits, part) for part in parts}
    ranked = rank_baselines(names, splits.train, views, protocol, k, show_progress)
    return {name: baseline.metrics for name, baseline in ranked.items()}


def rank_baselines(
    names: str | Sequence[str],
    train: Any,
    views: Mapping[str, HistoryDataset],
    protocol: EvaluationProtocol | None = None,
    k: Sequence[int] = CUT_OFFS,
    show_progress: bool = False,
) -> dict[str, RankedBaseline]:
    r"""
    Fit baselines, and rank the users of each view; other arguments are those of [`evaluate_baselines`].

    Args:
        train (`HistoryDataset` or `StreamedHistories`): The training view of a split.
        views (mapping of `str` to `HistoryDataset`): Validation or test views, by part.
    """
    protocol = protocol or EvaluationProtocol()
    found = {}
    for name in baseline_names(names):
        try:
            baseline = fit_baseline(name, train)
        except BaselineLimitError as error:
            if ALL not in ([names] if isinstance(names, str) else names):
                raise
            logger.warning(f"The baseline {name} is left out: {error}")
            continue
        found[name] = _rank(baseline, train.item_counts(), views, protocol, k, show_progress)
    return found


def _rank(
    baseline: Any,
    item_counts: npt.NDArray[Any],
    views: Mapping[str, HistoryDataset],
    protocol: EvaluationProtocol,
    k: Sequence[int],
    show_progress: bool,
) -> RankedBaseline:
    top_k = largest_cut_off(k, baseline.n_items)
    found = RankedBaseline({}, {})
    for part, view in views.items():
        ranked = rank_users(baseline, view, protocol, item_counts, top_k=top_k, show_progress=show_progress)
        measured = metrics_of_users(ranked.ranks, ranked.recommended, protocol, item_counts, k)
        found.metrics.update({f"{PART_PREFIXES[part]}_{metric}": value for metric, value in measured.items()})
        found.ranks[part] = ranked.ranks
    return found


def quick_baselines(splits: Splits, protocol: EvaluationProtocol) -> dict[str, dict[str, float]]:
    """
    Return the metrics of what a run is shown beside: popularity, and rules unless they would take minutes.

    The metrics of popularity alone are computed without scores, so they have no coverage or novelty.
    """
    n_events = int(splits.train.item_counts().sum())
    n_scores = (len(splits.validation) + len(splits.test)) * len(splits.train.item_counts())
    if n_events <= _QUICK_EVENTS and n_scores <= _QUICK_SCORES:
        return evaluate_baselines(["popularity", "rules"], splits, protocol)
    logger.warning(
        f"The baseline rules is left out: {n_events:,} training events and {n_scores:,} scores would take minutes. "
        "`hf-seqrec evaluate --baselines rules` measures it."
    )
    parts = {"eval": splits.validation, "test": splits.test}
    return {
        "popularity": {
            f"{prefix}_{name}": value
            for prefix, view in parts.items()
            for name, value in protocol.popularity(splits.train, view).items()
        }
    }


def compare_with_best(
    ranks: npt.NDArray[Any], baselines: Mapping[str, RankedBaseline], protocol: EvaluationProtocol
) -> Comparison:
    r"""
    Compare a model's NDCG@10 on the test part with that of the best baseline, by a paired bootstrap over the users.

    Args:
        ranks (`(n,)` int64): The model's, by the first ranking of the protocol, with the history excluded.
        baselines (mapping of `str` to [`RankedBaseline`]): Of the same users, with their test part.
        protocol ([`EvaluationProtocol`]): How all of them were ranked.
    """
    best = max(baselines, key=lambda name: ndcg(baselines[name].ranks["test"][0], 10))
    found = paired_bootstrap(ranks, baselines[best].ranks["test"][0], 10)["ndcg@10"]
    return {
        "metric": f"test_ndcg@10{next(iter(protocol.rankings))}",
        "baseline": best,
        "difference": found.difference,
        "interval": [found.low, found.high],
        "p_value": found.p_value,
        "n_users": len(ranks),
    }


def baseline_results(
    names: str | Sequence[str],
    sequences: Sequences,
    splits: Splits,
    protocol: EvaluationProtocol,
    parts: Sequence[str] = ("validation", "test"),
    k: Sequence[int] = CUT_OFFS,
    dataset: str = "",
) -> Results:
    """Return results of baselines alone, without a model; the arguments are those of [`evaluate_baselines`]."""
    began = time.perf_counter()
    baselines = evaluate_baselines(names, splits, protocol, parts, k, show_progress=sys.stderr.isatty())
    return {
        "model_type": None,
        "dataset": dataset,
        "statistics": dataset_statistics(sequences),
        "protocol": f"{splits.protocol}, {protocol.description}",
        "rankings": protocol.rankings,
        "split_counts": splits.counts,
        "metrics": {},
        "baselines": baselines,
        "evaluation_seconds": time.perf_counter() - began,
        "parameters": None,
        "command": command(sys.argv),
        "versions": versions(),
        "commit": commit(),
        "hardware": hardware(torch.device("cpu")),
    }
