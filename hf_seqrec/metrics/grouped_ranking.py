"""HR, NDCG and MRR for groups of users, with confidence intervals, as an `evaluate` module."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from .bootstrap import bootstrap_intervals
from .breakdowns import Groups, grouped_metrics, groups_by_length, groups_by_popularity
from .ranking import CUT_OFFS, ranking_metrics

_DESCRIPTION = """
HR@k, NDCG@k and MRR@k from the rank of one held-out item per user: for all users with bootstrap confidence intervals,
and for groups of them, by the length of their histories, the popularity of the held-out item, or labels of your own.
"""

_CITATION = """
@article{efron1979bootstrap,
  title={Bootstrap Methods: Another Look at the Jackknife},
  author={Efron, Bradley},
  journal={The Annals of Statistics},
  volume={7},
  number={1},
  pages={1--26},
  year={1979},
  doi={10.1214/aos/1176344552}
}
"""

_INPUTS = """
Args:
    predictions: the rank of each user's held-out item, from 0, of any protocol.
    references: configuration "labels" (the default): the name of each user's group. Configuration "lengths": the
        length of each user's history. Configuration "popularity": the catalog row of each user's held-out item.
    k: a cut-off or several; 1, 5, 10 and 20 by default.
    edges: lengths at which a new group begins; the quartiles by default ("lengths" only).
    item_counts: interactions of every catalog row in training, row 0 being padding ("popularity" only).
    shares: shares of the interactions at which mid and tail begin; a third and two thirds by default ("popularity"
        only).
    n_resamples: resamples of the bootstrap, 1000 by default; 0 for no intervals.
    confidence: share of the resamples within an interval; 0.95 by default.
    seed: of the resamples; 0 by default.
"""

# What each configuration is given to tell users apart.
_REFERENCES = {"default": "string", "labels": "string", "lengths": "int64", "popularity": "int64"}


class GroupedRanking(evaluate.Metric):
    r"""
    Ranking metrics for groups of users; `evaluate.load` on the path of this file gives the same module.

    Example:

    ```python
    >>> metric = GroupedRanking()  # GroupedRanking("labels")
    >>> results = metric.compute(predictions=[0, 2, 0], references=["new", "old", "old"], k=1, n_resamples=0)
    >>> results["old"]
    {'n_users': 2, 'hr@1': 0.5, 'ndcg@1': 0.5, 'mrr@1': 0.5}
    >>> GroupedRanking("lengths").compute(predictions=[0, 2], references=[3, 40], k=1, edges=[10])["all"]["hr@1"]
    0.5
    ```
    """

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in _REFERENCES:
            raise ValueError(f"`config_name` must be 'labels', 'lengths' or 'popularity', got {self.config_name!r}.")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {
                    # float64 shows ranks that are not whole.
                    "predictions": datasets.Value("float64"),
                    "references": datasets.Value(_REFERENCES[self.config_name]),
                }
            ),
        )

    def _compute(
        self,
        predictions: Sequence[float],
        references: Sequence[Any],
        k: int | Sequence[int] = CUT_OFFS,
        edges: Sequence[int] | None = None,
        item_counts: Sequence[float] | None = None,
        shares: tuple[float, float] = (1 / 3, 2 / 3),
        n_resamples: int = 1000,
        confidence: float = 0.95,
        seed: int = 0,
    ) -> dict[str, dict[str, Any]]:
        everybody: dict[str, Any] = {"n_users": len(predictions), **ranking_metrics(predictions, k)}
        if n_resamples:
            intervals = bootstrap_intervals(predictions, k, n_resamples, confidence, seed)
            everybody |= {f"{name}_interval": list(interval) for name, interval in intervals.items()}
        if self.config_name == "lengths":
            groups = groups_by_length(references, edges)
        elif self.config_name == "popularity":
            if item_counts is None:
                raise ValueError("`item_counts` must be given to group by popularity: the `count` of every row.")
            groups = groups_by_popularity(references, item_counts, shares)
        else:
            names, of_user = np.unique(np.asarray(references), return_inverse=True)
            groups = Groups(names.tolist(), of_user)
        if "all" in groups.names:
            raise ValueError("`references` must not name a group 'all': that is everybody. Call it something else.")
        return {"all": everybody, **grouped_metrics(predictions, groups, k)}
