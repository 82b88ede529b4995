"""Catalog coverage and novelty of what is recommended, as an `evaluate` module."""

from collections.abc import Sequence

import datasets
import evaluate
import numpy as np

from .item_lists import catalog_coverage, novelty

_DESCRIPTION = """
What a recommender shows, whether right or not. coverage@k: the share of the catalog that at least one user is
recommended among the first k. novelty@k: the mean self-information of the first k recommended items, -log2 of their
share of the training interactions, in bits: 0 were everybody recommended the only item anybody ever took.
"""

_CITATION = """
@inproceedings{vargas2011rank,
  title={Rank and Relevance in Novelty and Diversity Metrics for Recommender Systems},
  author={Vargas, Sa{\\'u}l and Castells, Pablo},
  booktitle={Proceedings of the Fifth ACM Conference on Recommender Systems},
  pages={109--116},
  year={2011},
  doi={10.1145/2043932.2043955}
}
@article{adomavicius2012improving,
  title={Improving Aggregate Recommendation Diversity Using Ranking-Based Techniques},
  author={Adomavicius, Gediminas and Kwon, YoungOk},
  journal={IEEE Transactions on Knowledge and Data Engineering},
  volume={24},
  number={5},
  pages={896--911},
  year={2012},
  doi={10.1109/TKDE.2011.15}
}
"""

_INPUTS = """
Args:
    predictions: catalog rows recommended to each user, best first, all lists of one length; 0 where there is none.
    item_counts: interactions of every catalog row in training, row 0 being padding with a count of 0.
    k: a cut-off or several, at most the length of the lists; the length of the lists by default.
"""


class BeyondAccuracy(evaluate.Metric):
    r"""
    Coverage and novelty of recommended items; `evaluate.load` on the path of this file gives the same module.

    Example:

    ```python
    >>> metric = BeyondAccuracy()
    >>> metric.compute(predictions=[[1, 2], [1, 3]], item_counts=[0, 4, 2, 2, 0], k=1)
    {'coverage@1': 0.25, 'novelty@1': 1.0}
    ```
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": datasets.List(datasets.Value("int64"))}),
        )

    def _compute(
        self, predictions: Sequence[Sequence[int]], item_counts: Sequence[float], k: int | Sequence[int] | None = None
    ) -> dict[str, float]:
        lengths = {len(rows) for rows in predictions}
        if len(lengths) > 1:
            raise ValueError(
                f"`predictions` must be lists of one length, got {min(lengths)} to {max(lengths)} items. Fill up with "
                "0."
            )
        rows = np.asarray(predictions)
        results = {}
        for cut_off in np.atleast_1d(rows.shape[1] if k is None else k).tolist():
            results[f"coverage@{cut_off}"] = catalog_coverage(rows, len(item_counts) - 1, cut_off)
            results[f"novelty@{cut_off}"] = novelty(rows, item_counts, cut_off)
        return results
