"""Batches for the sampled protocol: each user's held-out item comes with its negatives."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hf_seqrec.metrics.negatives import draw_negatives, popularity_weights

from ..data.histories import HistoryBatch, HistoryDataset


class SampledRankingCollator:
    r"""
    Adds `eval_negatives` (`[b, n]` int64) to the batches of a collator for ranking.

    They are those of [`~hf_seqrec.metrics.negatives.draw_negatives`] and depend on the seed and the user's position in
    the dataset folder alone: ranks, batch sizes, epochs and models agree on them.

    Args:
        collator: A collator for ranking.
        vocab_size (`int`): Items that are ranked, plus 1 for the padding row.
        n_negatives (`int`): Negatives of each user.
        distribution (`str`): `"uniform"` or `"popularity"`.
        item_counts (`(vocab_size,)`, *optional*): Training events of each row; for `"popularity"`.
        seed (`int`, *optional*, defaults to 0): Of the draws.
    """

    def __init__(
        self,
        collator: Callable[[Sequence[HistoryBatch]], dict[str, Tensor]],
        vocab_size: int,
        n_negatives: int,
        distribution: str,
        item_counts: npt.NDArray[np.int64] | None = None,
        seed: int = 0,
    ):
        self.collator, self.vocab_size, self.n_negatives = collator, vocab_size, n_negatives
        self.distribution, self.seed = distribution, seed
        # Once, not for every batch: of millions of items they take seconds.
        self.item_weights = None
        if distribution == "popularity" and item_counts is not None:
            self.item_weights = popularity_weights(item_counts, vocab_size)

    def __call__(self, examples: Sequence[HistoryBatch]) -> dict[str, Tensor]:
        histories = HistoryBatch.join(examples)
        batch = self.collator([histories])
        negatives = draw_negatives(
            batch["targets"].numpy(),
            batch["seen_items"].numpy(),
            self.vocab_size,
            self.n_negatives,
            self.distribution,
            self.item_weights,
            seed=self.seed,
            users=histories.users,
        )
        return batch | {"eval_negatives": torch.from_numpy(negatives)}


def check_enough_negatives(
    evaluation: HistoryDataset,
    n_negatives: int,
    distribution: str,
    n_items: int,
    item_counts: npt.NDArray[np.int64] | None = None,
) -> None:
    r"""
    Raise where a user has fewer items left to draw than negatives are asked for, before anything is trained.

    Raises:
        ValueError: naming how many users, and the fewest items that are left.
    """
    if evaluation.targets is None:
        raise ValueError("`evaluation` must have targets; use the validation or test view of a split.")
    can_be_drawn = np.ones(n_items + 1, dtype=bool)
    if distribution == "popularity":
        can_be_drawn = np.asarray(item_counts) > 0
    can_be_drawn[0] = False
    n_drawn = int(can_be_drawn.sum())
    # A history of so few events cannot exhaust them; only the others are counted item by item.
    suspects = np.flatnonzero(n_drawn - (evaluation.stops - evaluation.starts) - 1 < n_negatives)
    left = np.array(
        [
            n_drawn - can_be_drawn[np.unique([*evaluation.history(user), evaluation.targets[user]])].sum()
            for user in suspects.tolist()
        ],
        dtype=np.int64,
    )
    if (left < n_negatives).any():
        raise ValueError(
            f"`eval_negatives` must be at most the {left.min()} items that are left to draw for the user who has seen "
            f"most, got {n_negatives}, too many for {(left < n_negatives).sum():,} of {len(evaluation):,} users. "
            "Lower it or rank the whole catalog with `--eval_protocol full`."
        )
