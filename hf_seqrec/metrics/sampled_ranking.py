"""HR, NDCG and MRR of the held-out item among sampled negatives, as an `evaluate` module."""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np

from .negatives import draw_negatives, protocol_name
from .ranking import cut_offs_within, ranking_metrics, ranks_from_candidates

_DESCRIPTION = """
HR@k, NDCG@k and MRR@k of one held-out item per user, ranked among itself and n sampled negatives: drawn without
replacement, never the target nor anything in the user's history, seeded. Only for comparison with papers that sample:
the numbers are far higher than those of the full ranking and may order models differently. The protocol is part of
every result's name: `ndcg@10_100_uniform`. Ties count against the model; NaN raises.
"""

_CITATION = """
@inproceedings{krichene2020sampled,
  title={On Sampled Metrics for Item Recommendation},
  author={Krichene, Walid and Rendle, Steffen},
  booktitle={Proceedings of the 26th ACM SIGKDD Conference on Knowledge Discovery and Data Mining},
  year={2020},
  doi={10.1145/3394486.3403226}
}
"""

_INPUTS = """
Args:
    predictions: configuration "scores" (the default): the score of every catalog row, one list per user; the negatives
        are drawn here. Configuration "candidates": the score of the user's target, then those of its negatives.
    references: catalog row of each user's held-out item ("scores" only).
    seen_items: catalog rows of each user's history, padded with 0 or not ("scores" only).
    k: a cut-off or several, at most n + 1; 1, 5, 10 and 20 by default.
    distribution: "uniform" (the default) or "popularity". With "candidates", how they were drawn, for the names.
    alpha: power of the counts for "popularity"; 1 by default.
    n_negatives: negatives per user, 100 by default ("scores" only).
    item_counts: interactions of every catalog row in training ("scores" with "popularity" only).
    seed: decides the negatives, with each user's place in the order of evaluation; 0 by default ("scores" only).
"""


class SampledRanking(evaluate.Metric):
    r"""
    Sampled ranking of one held-out item per user; `evaluate.load` on the path of this file gives the same module.

    Example:

    ```python
    >>> metric = SampledRanking()  # SampledRanking("scores")
    >>> scores = [[0.0, 0.9, 0.5, 0.1, 0.2]]
    >>> metric.compute(predictions=scores, references=[2], seen_items=[[1]], k=1, n_negatives=2)
    {'hr@1_2_uniform': 1.0, 'ndcg@1_2_uniform': 1.0, 'mrr@1_2_uniform': 1.0}
    >>> SampledRanking("candidates").compute(predictions=[[0.5, 0.9, 0.1]], k=1, distribution="popularity")
    {'hr@1_2_popularity': 0.0, 'ndcg@1_2_popularity': 0.0, 'mrr@1_2_popularity': 0.0}
    ```
    """

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in ("default", "scores", "candidates"):
            raise ValueError(f"`config_name` must be 'scores' or 'candidates', got {self.config_name!r}.")
        # float64 keeps scores apart that float32 would tie.
        features = {"predictions": datasets.List(datasets.Value("float64"))}
        if self.config_name != "candidates":
            features |= {
                "references": datasets.Value("int64"),
                "seen_items": datasets.List(datasets.Value("int64")),
            }
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(features),
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[float]],
        references: Sequence[int] | None = None,
        seen_items: Sequence[Sequence[int]] | None = None,
        k: int | Sequence[int] | None = None,
        distribution: str = "uniform",
        alpha: float = 1.0,
        n_negatives: int = 100,
        item_counts: Sequence[float] | None = None,
        seed: int = 0,
    ) -> dict[str, float]:
        scores = np.asarray(predictions)
        if references is not None and seen_items is not None:
            negatives = draw_negatives(
                references, seen_items, scores.shape[1], n_negatives, distribution, item_counts, alpha, seed
            )
            scores = np.take_along_axis(scores, np.column_stack([references, negatives]), axis=1)
        protocol = protocol_name(scores.shape[1] - 1, distribution, alpha)
        results = ranking_metrics(ranks_from_candidates(scores), cut_offs_within(scores.shape[-1], k))
        return {f"{name}_{protocol}": value for name, value in results.items()}
