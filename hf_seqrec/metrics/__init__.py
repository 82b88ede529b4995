"""
How good a ranking is: arithmetic on ranks (`ranking.py`), negatives for sampled protocols (`negatives.py`), and two
`evaluate` modules (`full_ranking.py`, `sampled_ranking.py`). The folder is flat because `evaluate` copies a module's
file and the siblings it imports, one level deep.
"""

from .negatives import draw_negatives
from .ranking import hit_rate, mrr, ndcg, ranking_metrics, ranking_values, ranks_from_candidates, ranks_from_scores

__all__ = [
    "draw_negatives",
    "hit_rate",
    "mrr",
    "ndcg",
    "ranking_metrics",
    "ranking_values",
    "ranks_from_candidates",
    "ranks_from_scores",
]
