"""What a baseline is: fitted on training histories, it scores the catalog, and ranks as the models do."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..metrics.ranking import ranks_from_candidates, ranks_from_scores
from .training_events import TrainingEvents, training_events

if TYPE_CHECKING:
    from typing_extensions import Self

# Scores held at once: 2**25 float32 are 128 MiB.
_SCORES_AT_ONCE = 2**25


class BaselineLimitError(ValueError):
    """The catalog or the log is too large for a baseline."""


class Baseline(ABC):
    r"""
    A recommender without a network. Subclasses are dataclasses whose fields are the parameters.

    `fit` sees the training view alone; `scores` sees a user's history, which at test time includes the validation
    item. `rank_targets` and `rank_among` have the signatures of a model's, with the scores in place of the states, so
    that [`EvaluationProtocol`] ranks both alike: ties count against the baseline, NaN raises.

    Example:

    ```python
    >>> baseline = SequentialRules(window=10).fit(splits.train)
    >>> scores = baseline.scores(RankingCollator(50)(splits.test.__getitems__(range(64))))  # (64, v)
    ```
    """

    vocab_size: int = 0

    def fit(self, histories: Any) -> "Self":
        r"""
        Learn from training histories, and return the baseline itself.

        Args:
            histories (`HistoryDataset` or `StreamedHistories`): The training view of a split.

        Raises:
            ValueError: if `histories` is a validation or test view, or cut into windows.
        """
        events = training_events(histories)
        self.vocab_size = events.vocab_size
        self._fit(events)
        return self

    def scores(self, batch: Mapping[str, Tensor]) -> Tensor:
        r"""
        Score the catalog after each history, `(b, v)`; the padding row scores `-inf`.

        Args:
            batch (mapping of `str` to `torch.Tensor`): With `input_ids` `(b, l)`: catalog rows, oldest first, padded
                with 0 on either side.

        Raises:
            ValueError: if the baseline is not fitted, or a row is not in its catalog.
        """
        if not self.vocab_size:
            raise ValueError(f"{type(self).__name__} must be fitted before it scores. Call `fit(histories)` first.")
        input_ids = batch["input_ids"]
        if input_ids.ndim != 2 or not input_ids.numel():
            raise ValueError(f"`input_ids` must have the shape (b, l), got {tuple(input_ids.shape)}.")
        least, most = input_ids.aminmax()
        if least < 0 or most >= self.vocab_size:
            raise ValueError(
                f"`input_ids` must be rows in 0..{self.vocab_size - 1}, the catalog that {type(self).__name__} was "
                f"fitted on, got {int(least)} to {int(most)}."
            )
        return self._scores(input_ids)

    @property
    def n_items(self) -> int:
        """Number of items, the padding row not counted."""
        return self.vocab_size - 1

    @property
    def users_at_once(self) -> int:
        """Most users of a batch whose scores stay within 128 MiB."""
        return max(1, _SCORES_AT_ONCE // max(self.vocab_size, 1))

    def rank_targets(self, scores: Tensor, targets: Tensor, seen_items: Tensor) -> tuple[Tensor, Tensor]:
        """Rank the targets `(b,)` in the whole catalog, with the rows `seen_items` `(b, s)` excluded and with them."""
        with_seen = torch.from_numpy(ranks_from_scores(scores.cpu().numpy(), targets.cpu().numpy()))
        # Each item of the history that is ahead counts less, once. The target always takes part.
        seen, targets = seen_items.sort(dim=1).values, targets[:, None]
        competes = (seen > 0) & (seen != targets)
        competes[:, 1:] &= seen[:, 1:] != seen[:, :-1]
        is_ahead = competes & (scores.gather(1, seen) >= scores.gather(1, targets))
        return with_seen - is_ahead.sum(dim=1), with_seen

    def rank_among(self, scores: Tensor, targets: Tensor, negatives: Tensor) -> Tensor:
        """Rank the targets `(b,)` among themselves and their negatives `(b, n)`."""
        candidates = torch.cat([targets[:, None], negatives], dim=1)
        return torch.from_numpy(ranks_from_candidates(scores.gather(1, candidates).cpu().numpy()))

    def top_items(self, scores: Tensor, top_k: int, excluded_rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return rows and scores `(b, top_k)` of the best items, best first; what is excluded scores `-inf`."""
        if excluded_rows is not None:
            scores = scores.scatter(1, excluded_rows, -np.inf)
        best_scores, rows = scores.topk(top_k, dim=1)
        return rows, best_scores

    @abstractmethod
    def _fit(self, events: TrainingEvents) -> None:
        """Learn from training events; `vocab_size` is set."""

    @abstractmethod
    def _scores(self, input_ids: Tensor) -> Tensor:
        """Score the catalog after checked histories."""


def check_parameter(name: str, value: float, least: float, most: float = np.inf) -> None:
    """Raise unless a parameter of a baseline is within its range."""
    if not least <= value <= most:
        allowed = f"at least {least:g}" if most == np.inf else f"between {least:g} and {most:g}"
        raise ValueError(f"`{name}` must be {allowed}, got {value}.")
