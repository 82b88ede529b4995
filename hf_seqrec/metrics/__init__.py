"""
How good a ranking is: arithmetic on ranks (`ranking.py`), negatives for sampled protocols (`negatives.py`), confidence
intervals and paired tests (`bootstrap.py`), groups of users (`breakdowns.py`), what is recommended
(`item_lists.py`), and four `evaluate` modules (`full_ranking.py`, `sampled_ranking.py`, `grouped_ranking.py`,
`beyond_accuracy.py`). The folder is flat because `evaluate` copies a module's file and the siblings it imports, one
level deep.
"""

from .bootstrap import PairedDifference, bootstrap_intervals, paired_bootstrap
from .breakdowns import Groups, grouped_metrics, groups_by_length, groups_by_popularity
from .item_lists import catalog_coverage, novelty
from .negatives import draw_negatives
from .ranking import hit_rate, mrr, ndcg, ranking_metrics, ranking_values, ranks_from_candidates, ranks_from_scores

__all__ = [
    "Groups",
    "PairedDifference",
    "bootstrap_intervals",
    "catalog_coverage",
    "draw_negatives",
    "grouped_metrics",
    "groups_by_length",
    "groups_by_popularity",
    "hit_rate",
    "mrr",
    "ndcg",
    "novelty",
    "paired_bootstrap",
    "ranking_metrics",
    "ranking_values",
    "ranks_from_candidates",
    "ranks_from_scores",
]
