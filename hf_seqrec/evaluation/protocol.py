"""Among which items the held-out one is ranked: the whole catalog, or itself and some negatives."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..baselines.baseline import Baseline
from ..baselines.popularity import popularity_baseline
from ..data.collators import RankingCollator
from ..data.histories import HistoryDataset
from ..data.objectives import Collator
from ..metrics.negatives import protocol_name
from ..metrics.ranking import CUT_OFFS, ranking_metrics, ranks_from_candidates
from ..models.modeling_seqrec import SeqRecPreTrainedModel
from .candidates import SampledRankingCollator, check_enough_negatives

PROTOCOLS = ("full", "sampled")
DISTRIBUTIONS = ("uniform", "popularity")


@dataclass(frozen=True)
class EvaluationProtocol:
    r"""
    How each user's held-out item is ranked.

    `"full"`: among the whole catalog, without and with the user's history. `"sampled"`: among itself and negatives,
    drawn without replacement, never the target nor anything in the history. It is for comparison with papers that use
    it, and need not order models as the full ranking does (Krichene and Rendle 2020,
    https://doi.org/10.1145/3394486.3403226).

    Every metric has a suffix that says which ranking it is of: `ndcg@10` and `ndcg@10_with_seen`, or
    `ndcg@10_100_uniform`.

    Args:
        name (`str`, *optional*, defaults to `"full"`): `"full"` or `"sampled"`.
        n_negatives (`int`, *optional*, defaults to 100): Negatives of each user.
        distribution (`str`, *optional*, defaults to `"uniform"`): `"uniform"`, or `"popularity"`: in proportion to the
            events of an item in training.
        seed (`int`, *optional*, defaults to 0): Of the negatives; not the training's, so that runs can be compared.

    Raises:
        ValueError: if an argument is out of range.
    """

    name: str = "full"
    n_negatives: int = 100
    distribution: str = "uniform"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.name not in PROTOCOLS:
            raise ValueError(f"`eval_protocol` must be 'full' or 'sampled', got {self.name!r}.")
        if self.distribution not in DISTRIBUTIONS:
            raise ValueError(
                f"`eval_negatives_distribution` must be 'uniform' or 'popularity', got {self.distribution!r}."
            )
        if self.n_negatives < 1:
            raise ValueError(f"`eval_negatives` must be at least 1, got {self.n_negatives}.")

    @property
    def is_sampled(self) -> bool:
        """Whether the target is ranked among negatives."""
        return self.name == "sampled"

    @property
    def needs_counts(self) -> bool:
        """Whether negatives are drawn by the training events of the items."""
        return self.is_sampled and self.distribution == "popularity"

    @property
    def rankings(self) -> dict[str, str]:
        """The suffixes of the metrics, and what each is a ranking of, as a card says it."""
        if self.is_sampled:
            suffix = f"_{protocol_name(self.n_negatives, self.distribution)}"
            law = "uniform" if self.distribution == "uniform" else "popularity-weighted"
            return {suffix: f"among {self.n_negatives:,} {law} negatives (seed {self.seed})"}
        return {"": "full ranking, history excluded", "_with_seen": "full ranking, history not excluded"}

    @property
    def description(self) -> str:
        """The protocol in words, to stand beside its numbers."""
        if self.is_sampled:
            return (
                f"sampled ranking, the target {next(iter(self.rankings.values()))}, drawn without replacement from "
                "the items that the user has not seen; not comparable with a full ranking"
            )
        return "full ranking over the catalog; the user's history excluded, `_with_seen`: not"

    def collator(self, ranking: Collator, n_items: int, item_counts: npt.NDArray[np.int64] | None = None) -> Collator:
        """Add the negatives to a collator for ranking, where the protocol has some."""
        if not self.is_sampled:
            return ranking
        return SampledRankingCollator(
            ranking, n_items + 1, self.n_negatives, self.distribution, item_counts, self.seed
        )

    def check(
        self, evaluation: HistoryDataset, n_items: int, item_counts: npt.NDArray[np.int64] | None = None
    ) -> None:
        """Raise where a user has fewer items left to draw than negatives are asked for."""
        if self.is_sampled:
            check_enough_negatives(evaluation, self.n_negatives, self.distribution, n_items, item_counts)

    def ranks(
        self, model: SeqRecPreTrainedModel | Baseline, query_states: Tensor, batch: dict[str, Tensor]
    ) -> tuple[Tensor, ...]:
        """
        Rank the targets of a batch by the states `(b, d)` after its histories: `(b,)` for each of `rankings`.

        A baseline takes the scores `(b, v)` in place of the states.
        """
        if self.is_sampled:
            return (model.rank_among(query_states, batch["targets"], batch["eval_negatives"]),)
        return model.rank_targets(query_states, batch["targets"], batch["seen_items"])

    def metrics(self, ranks: Sequence[Any], k: int | Sequence[int] = CUT_OFFS) -> dict[str, float]:
        """Turn the ranks of all users, one array for each of `rankings`, into metrics."""
        return {
            f"{name}{suffix}": value
            for suffix, of_ranking in zip(self.rankings, ranks, strict=True)
            for name, value in ranking_metrics(of_ranking, k).items()
        }

    def popularity(self, train: Any, evaluation: HistoryDataset, users_at_once: int = 4096) -> dict[str, float]:
        """Metrics of recommending the most popular items to everyone, under this protocol."""
        if not self.is_sampled:
            return popularity_baseline(train, evaluation)
        counts = train.item_counts()
        collate = self.collator(RankingCollator(1), len(counts) - 1, counts)
        ranks = []
        for start in range(0, len(evaluation), users_at_once):
            batch = collate(evaluation.__getitems__(range(start, min(start + users_at_once, len(evaluation)))))
            candidates = np.column_stack([batch["targets"].numpy(), batch["eval_negatives"].numpy()])
            ranks.append(ranks_from_candidates(counts[candidates]))
        return self.metrics([np.concatenate(ranks)])


@dataclass
class RankingArguments:
    """How held-out items are ranked: options of a run and of an evaluation."""

    eval_protocol: str = field(
        default="full",
        metadata={
            "help": "Rank the held-out item among the whole catalog (`full`: with the history excluded, and not), or "
            "among itself and negatives (`sampled`), to compare with papers that do.",
            "choices": list(PROTOCOLS),
        },
    )
    eval_negatives: int = field(default=100, metadata={"help": "`sampled`: negatives of each user."})
    eval_negatives_distribution: str = field(
        default="uniform",
        metadata={
            "help": "`sampled`: draw all items alike, or by their training events.",
            "choices": list(DISTRIBUTIONS),
        },
    )
    eval_negatives_seed: int = field(
        default=0, metadata={"help": "`sampled`: seed of the negatives; the same for all runs that are compared."}
    )

    @property
    def protocol(self) -> EvaluationProtocol:
        """How held-out items are ranked."""
        return EvaluationProtocol(
            self.eval_protocol, self.eval_negatives, self.eval_negatives_distribution, self.eval_negatives_seed
        )


def model_inputs(batch: dict[str, Any]) -> dict[str, Any]:
    """Return what of a batch for ranking a model is given; the rest says what to rank."""
    return {name: value for name, value in batch.items() if name not in ("targets", "seen_items", "eval_negatives")}
