"""HR, NDCG and MRR of the held-out item among the whole catalog, as an `evaluate` module."""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np

from .ranking import CUT_OFFS, cut_offs_within, ranking_metrics, ranks_from_scores

_DESCRIPTION = """
HR@k, NDCG@k and MRR@k of one held-out item per user, ranked among the whole catalog. Ties count against the model; NaN
raises. Both numbers that papers give are reported: with the user's history excluded (`ndcg@10`) and not
(`ndcg@10_with_seen`).
"""

_INPUTS = """
Args:
    predictions: configuration "scores" (the default): the score of every catalog row, one list per user; row 0 is
        padding and does not compete. Configuration "ranks", which keeps no scores: the rank of each user's held-out
        item, from 0.
    references: catalog row of each user's held-out item ("scores" only).
    seen_items: catalog rows of each user's history, padded with 0 or not; `[]` excludes nothing ("scores" only).
    k: a cut-off or several, at most the size of the catalog; 1, 5, 10 and 20 by default.
"""


class FullRanking(evaluate.Metric):
    r"""
    Full ranking of one held-out item per user; `evaluate.load` on the path of this file gives the same module.

    Example:

    ```python
    >>> metric = FullRanking()  # FullRanking("scores")
    >>> metric.compute(predictions=[[0.0, 0.9, 0.5, 0.1]], references=[2], seen_items=[[1]], k=1)
    {'hr@1': 1.0, 'ndcg@1': 1.0, 'mrr@1': 1.0, 'hr@1_with_seen': 0.0, 'ndcg@1_with_seen': 0.0, 'mrr@1_with_seen': 0.0}
    >>> FullRanking("ranks").compute(predictions=[0, 2], k=1)
    {'hr@1': 0.5, 'ndcg@1': 0.5, 'mrr@1': 0.5}
    ```
    """

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in ("default", "scores", "ranks"):
            raise ValueError(f"`config_name` must be 'scores' or 'ranks', got {self.config_name!r}.")
        # float64 keeps scores apart that float32 would tie, and shows ranks that are not whole.
        features = {"predictions": datasets.Value("float64")}
        if self.config_name != "ranks":
            features = {
                "predictions": datasets.List(datasets.Value("float64")),
                "references": datasets.Value("int64"),
                "seen_items": datasets.List(datasets.Value("int64")),
            }
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(features),
        )

    def _compute(
        self,
        predictions: Sequence,
        references: Sequence[int] | None = None,
        seen_items: Sequence[Sequence[int]] | None = None,
        k: int | Sequence[int] | None = None,
    ) -> dict[str, float]:
        if references is None:
            return ranking_metrics(predictions, CUT_OFFS if k is None else k)
        scores = np.asarray(predictions)
        k = cut_offs_within(scores.shape[-1] - 1, k)
        results = ranking_metrics(ranks_from_scores(scores, references, seen_items), k)
        with_seen = ranking_metrics(ranks_from_scores(scores, references), k)
        return results | {f"{name}_with_seen": value for name, value in with_seen.items()}
