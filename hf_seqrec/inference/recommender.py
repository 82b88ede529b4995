"""Recommend by raw item ids: a checkpoint's model and catalog together, for one history, many, or a live session."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers.utils import logging

from ..checkpoints.load import load_checkpoint
from ..data.catalog import Catalog, check_catalog_fits
from ..models.modeling_seqrec import SeqRecPreTrainedModel
from .recommendation import Answer, Recommendation, Rows, warn_of

if TYPE_CHECKING:
    from .sessions import Session, SessionStore

logger = logging.get_logger(__name__)


# Padded positions that are encoded at once: bounds the memory of many long histories.
_POSITIONS_AT_ONCE = 2**15


class Recommender:
    r"""
    A model and its catalog: raw item ids in; raw ids, scores and titles out.

    Args:
        model ([`SeqRecPreTrainedModel`]): Is put into evaluation mode.
        catalog ([`Catalog`]): The one that the model was trained with.

    Raises:
        ValueError: if the catalog is not the model's, see [`check_catalog_fits`].

    Example:

    ```python
    >>> recommender = Recommender.from_pretrained("runs/ml-1m")
    >>> recommender.recommend(["1193", "661"], top_k=1)
    [Recommendation(item_id='914', score=7.2, title='My Fair Lady (1964)')]
    >>> session = recommender.session("ann")
    >>> session.add("1193")
    True
    ```
    """

    def __init__(self, model: SeqRecPreTrainedModel, catalog: Catalog) -> None:
        check_catalog_fits(model.config, catalog)
        self.model = model.eval()
        self.catalog = catalog

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, revision: str | None = None) -> "Recommender":
        """Load a checkpoint folder or a model of the Hub; raises what [`load_checkpoint`] raises."""
        return cls(*load_checkpoint(name_or_path, revision))

    def recommend(
        self,
        history: Iterable[str | int],
        top_k: int = 10,
        exclude_seen: bool = True,
        candidates: Iterable[str | int] | None = None,
    ) -> list[Recommendation]:
        r"""
        Recommend what comes next after a history, best first: `top_k` items, or fewer where fewer are left.

        Items that the catalog does not have are left out, with a warning that counts them. Where none is left, or the
        history is empty, the answer is the most popular items, and a warning says so.

        Args:
            history (`list[str | int]`): Raw item ids, oldest first. A model with positions keeps the most recent
                `config.max_position_embeddings`.
            top_k (`int`, *optional*, defaults to 10): How many items.
            exclude_seen (`bool`, *optional*, defaults to `True`): Leave out the items of the history.
            candidates (`list[str | int]`, *optional*): Recommend only from these raw ids.

        Raises:
            ValueError: if `top_k` is not in 1..n_items, or the catalog has none of the candidates.
        """
        history = list(history)
        if candidates is not None:
            candidates = list(candidates)
            unknown = self.catalog.encode_known(candidates)[1]
            if unknown:
                logger.warning(
                    f"{unknown} of {len(candidates)} candidates are not in this model's catalog and were left out."
                )
        answer = self.recommend_many([history], top_k, exclude_seen, candidates)[0]
        warn_of(answer.unknown_items, len(history), answer.is_popularity)
        return answer.recommendations

    @torch.inference_mode()
    def recommend_many(
        self,
        histories: Sequence[Iterable[str | int]],
        top_k: int = 10,
        exclude_seen: bool = True,
        candidates: Iterable[str | int] | None = None,
    ) -> list[Answer]:
        """Recommend to many users at once, as [`recommend`] does to one; each [`Answer`] says what was left out."""
        self.check_top_k(top_k)
        allowed = None if candidates is None else self._candidate_rows(candidates)
        encoded = [self.catalog.encode_known(history) for history in histories]
        answers: dict[int, Answer] = {}
        # A user with fewer items left than asked for has a call alone, so that the others get all of theirs.
        alone: list[tuple[int, int]] = []
        together: list[int] = []
        for user, (rows, unknown) in enumerate(encoded):
            left = min(top_k, self._items_left(rows if exclude_seen else rows[:0], allowed))
            if not len(rows):
                popular = self.most_popular(top_k, candidate_rows=allowed)
                answers[user] = Answer(popular, unknown, is_popularity=True)
            elif left == 0:
                answers[user] = Answer([], unknown, is_popularity=False)
            elif left < top_k:
                alone.append((user, left))
            else:
                together.append(user)
        batches = [([user], left) for user, left in alone]
        batches += [(users, top_k) for users in self._batches(together, [len(rows) for rows, _ in encoded])]
        for users, left in batches:
            best = self._recommend_rows([encoded[user][0] for user in users], left, exclude_seen, allowed)
            for user, recommendations in zip(users, self.describe_many(*best), strict=True):
                answers[user] = Answer(recommendations, encoded[user][1], is_popularity=False)
        return [answers[user] for user in range(len(encoded))]

    def most_popular(
        self, top_k: int = 10, seen_rows: Rows | None = None, candidate_rows: Rows | None = None
    ) -> list[Recommendation]:
        """Return the items with the most interactions in the log, without the seen ones; counts are the scores."""
        rows = self._rows_by_popularity
        if candidate_rows is not None:
            rows = rows[np.isin(rows, candidate_rows)]
        if seen_rows is not None:
            # Among so many, `top_k` are not seen.
            rows = rows[: top_k + len(seen_rows)]
            rows = rows[~np.isin(rows, seen_rows)]
        rows = rows[:top_k]
        return self.describe(rows.tolist(), self.catalog.counts[rows - 1].tolist())

    def describe(self, rows: list[int], scores: list[float]) -> list[Recommendation]:
        """Name catalog rows: raw ids and titles beside the scores."""
        return self.describe_many([rows], [scores])[0]

    def describe_many(self, rows: list[list[int]], scores: list[list[float]]) -> list[list[Recommendation]]:
        """Name the catalog rows of many users, each with as many as it has: one look into the catalog for all."""
        of_all = list(chain.from_iterable(rows))
        named = zip(
            self.catalog.decode(of_all), chain.from_iterable(scores), self.catalog.describe(of_all), strict=True
        )
        described = (Recommendation(item_id, float(score), title) for item_id, score, title in named)
        return [list(islice(described, len(rows_of_user))) for rows_of_user in rows]

    def session(self, user: str) -> "Session":
        r"""
        Return a user's live session: `add` an item, `recommend` at any moment, in constant time and memory.

        Sessions of the same user are one. They are kept in `sessions`, 10,000 at most.

        Raises:
            ValueError: if the model carries no state.
        """
        return self.sessions.session(user)

    @cached_property
    def sessions(self) -> "SessionStore":
        """The [`SessionStore`] of `session`."""
        from .sessions import SessionStore

        return SessionStore(self)

    def check_top_k(self, top_k: int) -> None:
        """Refuse a `top_k` that is not in 1..n_items."""
        if not 1 <= top_k <= self.catalog.n_items:
            raise ValueError(f"`top_k` must be between 1 and the catalog's {self.catalog.n_items} items, got {top_k}.")

    def _candidate_rows(self, candidates: Iterable[str | int]) -> Rows:
        candidates = list(candidates)
        rows = np.unique(self.catalog.encode_known(candidates)[0])
        if not len(rows):
            raise ValueError(
                f"`candidates` must be items of this model's catalog of {self.catalog.n_items:,} items, none of the "
                f"{len(candidates)} given is. Pass raw item ids, or leave `candidates` out to choose from all."
            )
        return rows

    def _items_left(self, seen: Rows, allowed: Rows | None) -> int:
        if allowed is None:
            return self.catalog.n_items - len(np.unique(seen))
        return int((~np.isin(allowed, seen)).sum())

    @staticmethod
    def _batches(users: list[int], lengths: list[int]) -> Iterator[list[int]]:
        """Put users with histories of similar length together, so that little padding is encoded."""
        batch: list[int] = []
        for user in sorted(users, key=lengths.__getitem__):
            if batch and (len(batch) + 1) * lengths[user] > _POSITIONS_AT_ONCE:
                yield batch
                batch = []
            batch.append(user)
        if batch:
            yield batch

    def _recommend_rows(
        self, histories: list[Rows], top_k: int, exclude_seen: bool, allowed: Rows | None
    ) -> tuple[list[list[int]], list[list[float]]]:
        input_ids = torch.zeros(len(histories), max(map(len, histories)), dtype=torch.long)
        for row, history in zip(input_ids, histories, strict=True):
            row[: len(history)] = torch.from_numpy(history)
        device = self.model.device
        candidate_rows = None if allowed is None else torch.from_numpy(allowed).to(device)
        rows, scores = self.model.recommend(
            input_ids.to(device), top_k=top_k, exclude_seen=exclude_seen, candidate_rows=candidate_rows
        )
        return rows.tolist(), scores.tolist()

    @cached_property
    def _rows_by_popularity(self) -> Rows:
        # Of equal counts, and where the catalog has none, the order of the rows: that of popularity when it was built.
        return np.argsort(-self.catalog.counts, kind="stable") + 1
