"""
Evaluate a model or a baseline without the Trainer: match catalogs, rank each held-out item, and describe the ranks.

    sequences -> splits -> match_catalog -> rank_users -> describe
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from tqdm import tqdm

from ..baselines.baseline import Baseline
from ..data.collators import RankingCollator
from ..data.histories import HistoryDataset
from ..data.objectives import collators_for
from ..metrics.bootstrap import bootstrap_intervals
from ..metrics.breakdowns import grouped_metrics, groups_by_length, groups_by_popularity
from ..metrics.item_lists import catalog_coverage, novelty
from ..metrics.ranking import CUT_OFFS
from ..models.item_scores import top_k_items
from ..models.modeling_seqrec import SeqRecPreTrainedModel
from .protocol import EvaluationProtocol, model_inputs


@dataclass(frozen=True)
class RankedUsers:
    """
    What a model or a baseline made of each user, `(n, ...)` in the order of the view.

    Fields:
        ranks: The ranks of the targets, one `(n,)` for each ranking of the protocol.
        recommended (`(n, top_k)` int64): The best items that are not in the history, best first; 0 where none is left.
        loss: The mean full-catalog loss of the targets; a baseline has none.
    """

    ranks: list[npt.NDArray[np.int64]]
    recommended: npt.NDArray[np.int64]
    loss: float | None


@torch.no_grad()
def rank_users(
    model: SeqRecPreTrainedModel | Baseline,
    view: HistoryDataset,
    protocol: EvaluationProtocol | None = None,
    item_counts: npt.NDArray[np.int64] | None = None,
    max_length: int = 200,
    batch_size: int = 256,
    top_k: int = 10,
    show_progress: bool = False,
) -> RankedUsers:
    r"""
    Rank each user's held-out item and recommend `top_k` items, as [`SeqRecTrainer`] does with the same batches.

    Args:
        model ([`SeqRecPreTrainedModel`] or [`Baseline`]): A model on the device where it shall run, which is put into
            evaluation mode; or a baseline that is fitted.
        view ([`HistoryDataset`]): Histories with targets, in the rows of the model.
        protocol ([`EvaluationProtocol`], *optional*): Full ranking by default.
        item_counts (`(n_items + 1,)` int64, *optional*): Training events of each row, where the protocol needs them.
        max_length (`int`, *optional*, defaults to 200): Most positions that the model sees. A baseline sees whole
            histories, and takes of them what its own parameters say.
        batch_size (`int`, *optional*, defaults to 256): Users at once; fewer for a baseline of a large catalog.
        top_k (`int`, *optional*, defaults to 10): How many items to recommend to each.
        show_progress (`bool`, *optional*, defaults to `False`): Whether to show a progress bar.

    Raises:
        ValueError: if there is no user, scores are NaN or infinite, or a user has fewer items left than the protocol
            wants negatives.
    """
    protocol = protocol or EvaluationProtocol()
    if not len(view):
        raise ValueError("`view` must have a user to evaluate, got none. Take a dataset with longer histories.")
    ranker = _BaselineRanker(model, view) if isinstance(model, Baseline) else _ModelRanker(model, max_length)
    if not 1 <= top_k <= ranker.n_items:
        raise ValueError(f"`top_k` must be between 1 and the {ranker.n_items} items, got {top_k}.")
    protocol.check(view, ranker.n_items, item_counts)
    collate = protocol.collator(ranker.collator, ranker.n_items, item_counts)
    batch_size = min(batch_size, ranker.users_at_once)
    ranks: list[tuple[npt.NDArray[np.int64], ...]] = []
    recommended, losses = [], []
    with tqdm(total=len(view), unit=" users", disable=not show_progress) as progress:
        for start in range(0, len(view), batch_size):
            users = range(start, min(start + batch_size, len(view)))
            batch = {name: values.to(ranker.device) for name, values in collate(view.__getitems__(users)).items()}
            states, loss = ranker.states_and_loss(batch)
            of_batch = protocol.ranks(model, states, batch)
            ranks.append(tuple(of_ranking.cpu().numpy() for of_ranking in of_batch))
            rows, scores = ranker.top_items(states, top_k, batch["seen_items"])
            recommended.append(rows.masked_fill(torch.isneginf(scores), 0).cpu().numpy())
            losses += [] if loss is None else [loss * len(users)]
            progress.update(len(users))
    return RankedUsers(
        ranks=[np.concatenate(of_ranking) for of_ranking in zip(*ranks, strict=True)],
        recommended=np.concatenate(recommended),
        loss=sum(losses) / len(view) if losses else None,
    )


class _ModelRanker:
    """What ranking needs of a model."""

    def __init__(self, model: SeqRecPreTrainedModel, max_length: int):
        self.model, self.device, self.n_items = model.eval(), model.device, model.config.n_items
        self.collator = collators_for(model.config, max_length).ranking
        self.users_at_once = sys.maxsize
        self.items, self.bias = model.output_items()

    def states_and_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, float | None]:
        output = self.model(**model_inputs(batch))
        return output.last_hidden_state[:, 0], output.loss.item()

    def top_items(self, states: Tensor, top_k: int, seen_items: Tensor) -> tuple[Tensor, Tensor]:
        return top_k_items(states, self.items, top_k, self.bias, excluded_rows=seen_items)


class _BaselineRanker:
    """What ranking needs of a baseline, whose states are the scores of the catalog."""

    def __init__(self, baseline: Baseline, view: HistoryDataset):
        self.baseline, self.device, self.n_items = baseline, torch.device("cpu"), baseline.n_items
        self.collator = RankingCollator(max_length=int((view.stops - view.starts).max()))
        self.users_at_once = baseline.users_at_once

    def states_and_loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, float | None]:
        return self.baseline.scores(batch), None

    def top_items(self, states: Tensor, top_k: int, seen_items: Tensor) -> tuple[Tensor, Tensor]:
        return self.baseline.top_items(states, top_k, seen_items)


def largest_cut_off(k: Sequence[int], n_items: int) -> int:
    """Return the largest of the cut-offs that a catalog has enough items for, or 1: how many to recommend."""
    return max(cut_off for cut_off in [1, *k] if cut_off <= n_items)


def metrics_of_users(
    ranks: Sequence[npt.NDArray[np.int64]],
    recommended: npt.NDArray[np.int64],
    protocol: EvaluationProtocol,
    item_counts: npt.NDArray[np.int64],
    k: Sequence[int] = CUT_OFFS,
) -> dict[str, float]:
    """Return the metrics of every ranking, and coverage and novelty of what was recommended; as in [`describe`]."""
    metrics = protocol.metrics(ranks, k)
    for cut_off in k:
        if cut_off <= recommended.shape[1]:
            metrics[f"coverage@{cut_off}"] = catalog_coverage(recommended, len(item_counts) - 1, cut_off)
            # A user who has seen everything is recommended nothing.
            lists = recommended[recommended[:, 0] > 0]
            if len(lists):
                metrics[f"novelty@{cut_off}"] = novelty(lists, item_counts, cut_off)
    return metrics


def describe(
    ranked: RankedUsers,
    protocol: EvaluationProtocol,
    view: HistoryDataset,
    is_ranked: npt.NDArray[np.bool_],
    item_counts: npt.NDArray[np.int64],
    model_item_counts: npt.NDArray[np.int64],
    misses: bool = False,
    k: Sequence[int] = CUT_OFFS,
    length_edges: Sequence[int] | None = None,
    n_resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    r"""
    Return `metrics`, `intervals` (95 % bootstrap), and `breakdowns` by length of the history and by popularity.

    Args:
        ranked ([`RankedUsers`]): What [`rank_users`] returned.
        protocol ([`EvaluationProtocol`]): How they were ranked.
        view ([`HistoryDataset`]): All users that should have been, in the rows of the dataset.
        is_ranked (`(n,)` bool): Which of them were.
        item_counts, model_item_counts: Training events of each row, of the dataset's and of the model's catalog.
        misses (`bool`, *optional*, defaults to `False`): Whether users who could not be ranked count as missed. They
            are left out by default.
        k (sequence of `int`, *optional*): Cut-offs.
        length_edges (sequence of `int`, *optional*): Where a new group of lengths begins; quartiles by default.
        n_resamples (`int`, *optional*, defaults to 1000): Of the bootstrap.
        seed (`int`, *optional*, defaults to 0): Of the bootstrap.
    """
    assert view.targets is not None  # ranks are of targets
    ranks, users = ranked.ranks, is_ranked
    if misses:
        # Beyond all cut-offs.
        ranks = [np.full(len(view), max(*k, len(model_item_counts))) for _ in ranked.ranks]
        for filled, of_ranking in zip(ranks, ranked.ranks, strict=True):
            filled[is_ranked] = of_ranking
        users = np.ones(len(view), dtype=bool)
    metrics = metrics_of_users(ranks, ranked.recommended, protocol, model_item_counts, k)
    if ranked.loss is not None:
        metrics["loss"] = ranked.loss
    intervals = {
        f"{name}{suffix}": list(interval)
        for suffix, of_ranking in zip(protocol.rankings, ranks, strict=True)
        for name, interval in bootstrap_intervals(of_ranking, k, n_resamples, seed=seed).items()
    }
    groups = {
        "history length": groups_by_length((view.stops - view.starts)[users], length_edges),
        "target popularity": groups_by_popularity(view.targets[users], item_counts),
    }
    breakdowns = {name: grouped_metrics(ranks[0], grouped, k) for name, grouped in groups.items()}
    return {"metrics": metrics, "intervals": intervals, "breakdowns": breakdowns}
