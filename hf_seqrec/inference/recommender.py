"""Recommend by raw item ids: a checkpoint's model and catalog together, for one history, many, or a live session."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.load import checkpoint_folder, load_checkpoint
from ..data.catalog import Catalog, check_catalog_fits
from ..models.item_scores import top_k_items
from ..models.modeling_seqrec import SeqRecPreTrainedModel
from .checks import check_finite_scores, check_finite_weights
from .filters import Filters, make_filters, most_popular
from .raw_ids import plain_list, raw_ids
from .recommendation import Answer, Recommendation, Rows, check_top_k, describe_many, warn_about
from .search_index import SearchIndex
from .sessions import Session, SessionStore

# Padded positions that are encoded at once: bounds the memory of many long histories.
_POSITIONS_AT_ONCE = 2**15


class Recommender:
    r"""
    A model and its catalog: raw item ids in; raw ids, scores and titles out.

    Args:
        model ([`SeqRecPreTrainedModel`]): Is put into evaluation mode.
        catalog ([`Catalog`]): The one that the model was trained with.
        index ([`SearchIndex`], *optional*): Search it instead of scoring all items. Where it finds fewer than there
            are, and for `candidates`, scores are exact all the same. Sessions do not search it.
        effort (`int`, *optional*, defaults to 64): Search effort of the index, see [`SearchIndex.search`].

    Raises:
        ValueError: if the catalog or the index is not the model's, or a weight is NaN or infinite.

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

    def __init__(
        self, model: SeqRecPreTrainedModel, catalog: Catalog, index: SearchIndex | None = None, effort: int = 64
    ) -> None:
        check_catalog_fits(model.config, catalog)
        check_finite_weights(model)
        if index is not None:
            index.check_model(model)
        self.model = model.eval()
        self.catalog = catalog
        self.index = index
        self.effort = effort

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, revision: str | None = None, index: bool = False
    ) -> "Recommender":
        r"""
        Load a checkpoint.

        Args:
            name_or_path (`str`): A checkpoint folder or the id of a model on the Hub.
            revision (`str`, *optional*): Branch, tag or commit on the Hub.
            index (`bool`, *optional*, defaults to `False`): Load the search index beside the checkpoint, too, which
                `hf-seqrec index` builds.

        Raises:
            FileNotFoundError: if the index is wanted and there is none.
            ImportError: if the index is wanted and FAISS is not installed.
            ValueError: if the checkpoint or its index cannot be loaded.
        """
        folder = checkpoint_folder(name_or_path, revision)
        model, catalog = load_checkpoint(folder)
        return cls(model, catalog, SearchIndex.load(folder, model) if index else None)

    def recommend(
        self,
        history: Iterable[str | int],
        top_k: int = 10,
        exclude_seen: bool = True,
        candidates: Iterable[str | int] | None = None,
        exclude: Iterable[str | int] | None = None,
    ) -> list[Recommendation]:
        r"""
        Recommend what comes next after a history, best first: `top_k` items, or fewer where fewer are left.

        Items that the catalog does not have are left out, with a warning that counts them. Where none is left, or the
        history is empty, the answer is the most popular items, and a warning says so.

        Args:
            history (`list[str | int]`): Raw item ids, oldest first, in a list, an array of numpy, pandas or pyarrow,
                or a generator. A model with positions keeps the most recent `config.max_position_embeddings`.
            top_k (`int`, *optional*, defaults to 10): How many items.
            exclude_seen (`bool`, *optional*, defaults to `True`): Leave out the items of the history.
            candidates (`list[str | int]`, *optional*): Recommend only from these raw ids.
            exclude (`list[str | int]`, *optional*): Never recommend these raw ids.

        Raises:
            TypeError: if `history`, `candidates` or `exclude` is no list of raw ids, or `top_k` no integer.
            ValueError: if `top_k` is not in 1..n_items, the catalog has none of the candidates, or scores are NaN.
        """
        history = raw_ids(history, "history")
        candidates = None if candidates is None else raw_ids(candidates, "candidates")
        answer = self.recommend_many([history], top_k, exclude_seen, candidates, exclude)[0]
        warn_about(answer, len(history), len(candidates or []))
        return answer.recommendations

    @torch.inference_mode()
    def recommend_many(
        self,
        histories: Iterable[Iterable[str | int]],
        top_k: int = 10,
        exclude_seen: bool = True,
        candidates: Iterable[str | int] | None = None,
        exclude: Iterable[str | int] | None = None,
    ) -> list[Answer]:
        """Recommend to many users at once, as [`recommend`] does to one; each [`Answer`] says what was left out."""
        check_top_k(top_k, self.catalog.n_items)
        lists = plain_list(histories)
        if lists is None:
            raise TypeError(f"`histories` must be a list of histories, got {histories!r:.100}. Put it into a list.")
        encoded = [
            self.catalog.encode_known(raw_ids(history, f"histories[{user}]")) for user, history in enumerate(lists)
        ]
        filters = make_filters(self.catalog, candidates, exclude)
        popular = most_popular(self.catalog, top_k, filters) if any(not len(rows) for rows, _ in encoded) else []
        answers = [Answer(popular, unknown, "popularity", filters.unknown_candidates) for _, unknown in encoded]
        for users in self._batches([len(rows) for rows, _ in encoded]):
            best = self._best([encoded[user][0] for user in users], top_k, exclude_seen, filters)
            for user, recommendations in zip(users, best, strict=True):
                answers[user] = answers[user]._replace(recommendations=recommendations, source="model")
        return answers

    def session(self, user: str) -> Session:
        r"""
        Return a user's live session: `add` an item, `recommend` at any moment, in constant time and memory.

        Sessions of the same user are one. They are kept in `sessions`, 10,000 at most.

        Raises:
            ValueError: if the model carries no state.
        """
        return self.sessions.session(user)

    @cached_property
    def sessions(self) -> SessionStore:
        """The [`SessionStore`] of `session`."""
        return SessionStore(self.model, self.catalog)

    @staticmethod
    def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
        """Put users with histories of similar length together, so that little padding is encoded; skip empty ones."""
        batch: list[int] = []
        for user in sorted((user for user, length in enumerate(lengths) if length), key=lengths.__getitem__):
            if batch and (len(batch) + 1) * lengths[user] > _POSITIONS_AT_ONCE:
                yield batch
                batch = []
            batch.append(user)
        if batch:
            yield batch

    def _best(
        self, histories: list[Rows], top_k: int, exclude_seen: bool, filters: Filters
    ) -> list[list[Recommendation]]:
        """Recommend to a batch of histories, none of them empty."""
        input_ids = torch.zeros(len(histories), max(map(len, histories)), dtype=torch.long)
        for row, history in zip(input_ids, histories, strict=True):
            row[: len(history)] = torch.from_numpy(history)
        input_ids = input_ids.to(self.model.device)
        states = self.model.query_states(input_ids)
        excluded = torch.from_numpy(filters.excluded_rows).to(input_ids).expand(len(input_ids), -1)
        if exclude_seen:
            excluded = torch.cat([input_ids, excluded], dim=1)
        rows, scores = self._search(states, top_k, excluded, filters.candidate_rows)
        check_finite_scores(scores)
        counts = (~torch.isneginf(scores)).sum(dim=1).tolist()
        best = [
            [values[:count] for values, count in zip(part.tolist(), counts, strict=True)] for part in (rows, scores)
        ]
        return describe_many(self.catalog, *best)

    def _search(
        self, states: Tensor, top_k: int, excluded: Tensor, candidate_rows: Rows | None
    ) -> tuple[Tensor, Tensor]:
        """Return rows and scores of the best items, `(b, top_k)` each; a score is `-inf` where no item is left."""
        if self.index is None or candidate_rows is not None:
            return self._score(states, top_k, excluded, candidate_rows)
        rows, scores = self.index.search(states, top_k, excluded, self.effort)
        # An index may overlook items that are left, or all of those that are allowed.
        is_short = torch.isneginf(scores).any(dim=1)
        if is_short.any():
            rows[is_short], scores[is_short] = self._score(states[is_short], top_k, excluded[is_short], None)
        return rows, scores

    def _score(
        self, states: Tensor, top_k: int, excluded: Tensor, candidate_rows: Rows | None
    ) -> tuple[Tensor, Tensor]:
        """Score the whole catalog, or the candidates; as `_search`, with fewer columns where candidates are fewer."""
        items, bias = self.model.output_items()
        if candidate_rows is None:
            return top_k_items(states, items, top_k, bias, excluded)
        # The padding row first, as in the whole catalog, so that it is masked here too.
        chosen = torch.from_numpy(np.concatenate([[0], candidate_rows])).to(excluded)
        items, bias = items[chosen], None if bias is None else bias[chosen]
        excluded = torch.searchsorted(chosen, excluded) * torch.isin(excluded, chosen)
        places, scores = top_k_items(states, items, top_k, bias, excluded)
        return chosen[places], scores
