r"""
Live sessions: what a model knows of each user, updated event by event, and recommended from at any moment.

A [`SessionStore`] holds the states of many users in one tensor for each part of a model's cache, so an update of one
user or of a thousand is one call of the model. The scores are those of the whole history encoded at once.

- Without positions (Mamba4Rec, MambaRec, MLSA4Rec, GRU4Rec) an update takes the same time and memory whatever came
  before it.
- With positions (RecMamba, SASRec, MoEMaTrRec) a model sees the most recent `config.max_position_embeddings` items, as
  `recommend` does. Until a history is that long, an update adds to the state; of SASRec and MoEMaTrRec it takes longer
  with every item that there is to attend to. Beyond, every update moves the window, and with it all positions, so the
  window's items are encoded again: slower, but still the same for any history.
- BERT4Rec, and the settings that reproduce authors' code that sees the future, have no state: an error says so.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from ..data.catalog import Catalog, check_catalog_fits
from ..models.history_cache import HistoryCache
from ..models.history_context import HistoryContext
from ..models.modeling_seqrec import SeqRecPreTrainedModel
from .checks import check_finite_scores, check_finite_weights
from .filters import Filters, make_filters, most_popular
from .raw_ids import raw_ids
from .recommendation import (
    Answer,
    Recommendation,
    Rows,
    check_top_k,
    describe_many,
    warn_about,
    warn_about_unknown_items,
)
from .session_file import Fingerprints, read_sessions, write_sessions
from .session_state import NewEvents, _index, _resized, is_ragged, new_user_arrays

# Padded positions that are encoded at once, and scores that are held at once: they bound the memory of a call.
_POSITIONS_AT_ONCE = 2**14
_SCORES_AT_ONCE = 2**24
_FIRST_CAPACITY = 16


class SessionStore:
    r"""
    The sessions of many users; the least recently used one makes room where there is no more.

    May be used from several threads, which take turns.

    Args:
        model ([`SeqRecPreTrainedModel`]): Is put into evaluation mode.
        catalog ([`Catalog`]): The one that the model was trained with.
        max_users (`int`, *optional*, defaults to 10,000): How many sessions are kept. Memory is taken as they come, at
            most twice `bytes_per_user` for each.
        seen_limit (`int`, *optional*): Leave out of recommendations only a user's last `seen_limit` items, at 4 bytes
            each. By default all that a user ever had: one bit for each item of the catalog, whatever the history.

    Raises:
        ValueError: if the model carries no state, the catalog is not the model's, or a weight is NaN or infinite.

    Example:

    ```python
    >>> store = SessionStore(*load_checkpoint("runs/ml-1m"))
    >>> store.add_many(["ann", "bob", "ann"], ["1193", "661", "914"])
    >>> ann, bob = store.recommend_many(["ann", "bob"])
    ```
    """

    def __init__(
        self,
        model: SeqRecPreTrainedModel,
        catalog: Catalog,
        *,
        max_users: int = 10_000,
        seen_limit: int | None = None,
    ) -> None:
        config = model.config
        if config.stateless_because is not None:
            raise ValueError(
                f"A session needs a model that carries state, but {config.stateless_because}. Use "
                "`Recommender.recommend`, which encodes the whole history at each call."
            )
        if max_users < 1:
            raise ValueError(f"`max_users` must be at least 1, got {max_users}.")
        if seen_limit is not None and seen_limit < 0:
            raise ValueError(f"`seen_limit` must be at least 0, or None for all items, got {seen_limit}.")
        check_catalog_fits(model.config, catalog)
        check_finite_weights(model)
        self.model, self.catalog = model.eval(), catalog
        self.max_users, self.seen_limit = max_users, seen_limit
        self.evictions = 0
        self._lock = threading.RLock()
        # Models with positions encode their window again when it moves, so they need its items.
        self._window = config.max_position_embeddings
        self._n_recent = max(self._window or 0, seen_limit or 0)
        self._n_seen_bytes = -(-(config.n_items + 1) // 8) if seen_limit is None else 0
        self._clear()

    def _clear(self) -> None:
        # The least recently used first.
        self._slots: OrderedDict[str, int] = OrderedDict()
        self._free: list[int] = []
        self._capacity = 0
        # By part of the cache, `(capacity, ...)`; and the states that predict, `(capacity, d)`.
        self._states: dict[str, Tensor] = {}
        self._queries = torch.empty(0)
        self._users = new_user_arrays(0, self._n_recent, self._n_seen_bytes)

    def __len__(self) -> int:
        return len(self._slots)

    def __contains__(self, user: str) -> bool:
        return user in self._slots

    @cached_property
    def bytes_per_user(self) -> int:
        """What a session takes, in bytes, without the user's id: state, seen items, and the last items if needed."""
        states, queries = self._one_event()
        of_model = sum(self._whole(name, part).nbytes for name, part in states.items()) + queries.nbytes
        of_user = new_user_arrays(1, self._n_recent, self._n_seen_bytes)
        return of_model + sum(values.nbytes for values in of_user.by_name.values())

    def events(self, user: str) -> int:
        """How many items a user's session has had, known to the catalog; 0 without a session."""
        with self._lock:
            return int(self._users.events[self._slots[user]]) if user in self._slots else 0

    def session(self, user: str) -> "Session":
        """Return a user's session, to add to and recommend from; it begins with its first item."""
        return Session(self, user)

    def add_many(self, users: Sequence[str], item_ids: Iterable[str | int]) -> int:
        r"""
        Add one event for each pair of user and raw item id, in their order, and return how many items were unknown.

        Unknown items are left out, with a warning that counts them. A user may come more than once.
        """
        item_ids = raw_ids(item_ids, "item_ids")
        if len(users) != len(item_ids):
            raise ValueError(
                f"`users` and `item_ids` must be pairs, got {len(users)} users and {len(item_ids)} items. Repeat a "
                "user for each of its items."
            )
        rows = self.catalog.rows_of(item_ids)
        of_users: dict[str, list[int]] = {}
        for user, row in zip(users, rows.tolist(), strict=True):
            if row:
                of_users.setdefault(user, []).append(row)
        self.add_rows({user: np.asarray(rows_of_user) for user, rows_of_user in of_users.items()})
        unknown = int((rows == 0).sum())
        warn_about_unknown_items(unknown, len(item_ids))
        return unknown

    @torch.inference_mode()
    def add_rows(self, histories: Mapping[str, Rows]) -> None:
        """Add catalog rows, oldest first, to each user's session."""
        with self._lock:
            # Those whose state goes on, those whose window moves, and those who are new and may evict others.
            groups: tuple[list[NewEvents], ...] = ([], [], [])
            for user, rows in histories.items():
                if not len(rows):
                    continue
                slot = self._slots.get(user)
                if slot is None:
                    groups[2].append(NewEvents(user, rows, rows if self._window is None else rows[-self._window :]))
                elif self._window is not None and self._users.placed[slot] + len(rows) > self._window:
                    window = np.concatenate([self._users.last(slot, self._window), rows])[-self._window :]
                    groups[1].append(NewEvents(user, rows, window))
                else:
                    groups[0].append(NewEvents(user, rows, rows))
            for group in groups:
                for batch in self._batches(group):
                    self._add_batch(batch, goes_on=group is groups[0])

    def _batches(self, group: list["NewEvents"]) -> Iterator[list["NewEvents"]]:
        """Put users with about as much to encode together, so that little padding is encoded."""
        batch: list[NewEvents] = []
        for events in sorted(group, key=lambda events: len(events.encoded)):
            if batch and ((len(batch) + 1) * len(events.encoded) > _POSITIONS_AT_ONCE or len(batch) == self.max_users):
                yield batch
                batch = []
            batch.append(events)
        if batch:
            yield batch

    def _add_batch(self, batch: list["NewEvents"], goes_on: bool) -> None:
        before = self._read([self._slots[events.user] for events in batch]) if goes_on else {}
        states, queries = self._encode([events.encoded for events in batch], before)
        # Up to here nothing has changed: an update is made whole or not at all.
        slots = self._slots_for([events.user for events in batch])
        index = _index(slots)
        for name, part in states.items():
            if is_ragged(name):
                self._states[name][index, :, : part.shape[2]] = part
            else:
                self._states[name][index] = part
        self._queries[index] = queries
        for slot, events in zip(slots, batch, strict=True):
            self._users.add(slot, events.rows, len(events.encoded), goes_on)

    def _read(self, slots: list[int]) -> dict[str, Tensor]:
        index, longest = _index(slots), int(self._users.placed[slots].max())
        return {
            name: part[index, :, :longest] if is_ragged(name) else part[index] for name, part in self._states.items()
        }

    def _encode(self, histories: list[Rows], before: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Encode new items from the states before them: the states after them, and those that predict, `(b, d)`."""
        model = self.model
        input_ids = torch.zeros(len(histories), max(map(len, histories)), dtype=torch.long)
        for row, history in zip(input_ids, histories, strict=True):
            row[: len(history)] = torch.from_numpy(history)
        cache = HistoryCache(before)
        # Only a history that is alone in its batch is longer than one part: none ends before the last.
        for part in input_ids.to(model.device).split(max(1, _POSITIONS_AT_ONCE // len(histories)), dim=1):
            context = HistoryContext.from_mask((part != 0).long(), cache)
            queries = model.encode_last(model.item_embeddings(part), context)
        return cache.states, queries

    def _slots_for(self, users: list[str]) -> list[int]:
        """Give each user a slot, where it has none; at most `max_users` users."""
        for user in users:
            if user in self._slots:
                self._slots.move_to_end(user)
        new = [user for user in users if user not in self._slots]
        while len(self._free) < len(new) and self._capacity < self.max_users:
            self._grow()
        while len(self._free) < len(new):
            self._free.append(self._slots.popitem(last=False)[1])
            self.evictions += 1
        for user in new:
            self._slots[user] = self._free.pop()
            self._users.forget(self._slots[user])
        return [self._slots[user] for user in users]

    def _grow(self) -> None:
        old = self._capacity
        self._capacity = min(self.max_users, max(_FIRST_CAPACITY, 2 * old))
        if not self._states:
            states, self._queries = self._one_event()
            self._states = {name: self._whole(name, part)[:0] for name, part in states.items()}
            self._queries = self._queries[:0]
        self._states = {name: _resized(part, self._capacity) for name, part in self._states.items()}
        self._queries = _resized(self._queries, self._capacity)
        users = new_user_arrays(self._capacity, self._n_recent, self._n_seen_bytes)
        for name, values in users.by_name.items():
            values[:old] = self._users.by_name[name]
        self._users = users
        self._free.extend(range(self._capacity - 1, old - 1, -1))

    @torch.inference_mode()
    def _one_event(self) -> tuple[dict[str, Tensor], Tensor]:
        """Return what one event of one user leaves behind: the shapes of everything that is stored."""
        return self._encode([np.ones(1, np.int64)], {})

    def _whole(self, name: str, part: Tensor) -> Tensor:
        """Give keys and values `(b, h, places, d / h)` all the places that a model with positions has."""
        if not is_ragged(name):
            return part
        assert self._window is not None  # models with attention have positions
        return part.new_zeros(len(part), part.shape[1], self._window, part.shape[3])

    def recommend_many(
        self,
        users: Sequence[str],
        top_k: int = 10,
        exclude_seen: bool = True,
        candidates: Iterable[str | int] | None = None,
        exclude: Iterable[str | int] | None = None,
    ) -> list[Answer]:
        r"""
        Recommend to each user from its session: `top_k` items, or fewer where fewer are left.

        A user without a session gets the most popular items, and [`Answer.source`] says so.

        Args:
            users (`list[str]`): Their ids.
            top_k (`int`, *optional*, defaults to 10): How many items.
            exclude_seen (`bool`, *optional*, defaults to `True`): Leave out the session's items, see `seen_limit`.
            candidates (`list[str | int]`, *optional*): Recommend only from these raw ids.
            exclude (`list[str | int]`, *optional*): Never recommend these raw ids.

        Raises:
            TypeError: if `candidates` or `exclude` is no list of raw ids, or `top_k` no integer.
            ValueError: if `top_k` is not in 1..n_items, the catalog has none of the candidates, or scores are NaN.
        """
        check_top_k(top_k, self.catalog.n_items)
        filters = make_filters(self.catalog, candidates, exclude)
        with self._lock:
            known = [user for user in users if user in self._slots]
            slots = [self._slots[user] for user in known]
            for user in known:
                self._slots.move_to_end(user)
            step = max(1, _SCORES_AT_ONCE // (self.catalog.n_items + 1))
            parts = [slots[start : start + step] for start in range(0, len(slots), step)]
            best = [found for part in parts for found in self._best(part, top_k, exclude_seen, filters)]
        found = dict(zip(known, best, strict=True))
        unknown = filters.unknown_candidates
        answers = {user: Answer(items, 0, "model", unknown) for user, items in found.items()}
        popular: list[Recommendation] = []
        if len(answers) < len(set(users)):
            popular = most_popular(self.catalog, top_k, filters)
        return [answers.get(user, Answer(popular, 0, "popularity", unknown)) for user in users]

    @torch.inference_mode()
    def _best(self, slots: list[int], top_k: int, exclude_seen: bool, filters: Filters) -> list[list[Recommendation]]:
        items, bias = self.model.output_items()
        queries = self._queries[_index(slots)]
        scores = linear(queries, items.to(queries.dtype)).float()  # [b, v]
        if bias is not None:
            scores += bias
        scores[:, 0] = -torch.inf
        if exclude_seen:
            self._users.mask(scores, slots, self.seen_limit)
        if filters.candidate_rows is not None:
            is_other = torch.ones(scores.shape[1], dtype=torch.bool)
            is_other[torch.from_numpy(filters.candidate_rows)] = False
            scores.masked_fill_(is_other.to(scores.device), -torch.inf)
        if len(filters.excluded_rows):
            scores[:, torch.from_numpy(filters.excluded_rows).to(scores.device)] = -torch.inf
        best, rows = scores.topk(top_k)
        check_finite_scores(best)
        left = (~torch.isneginf(best)).sum(dim=1).tolist()
        return describe_many(
            self.catalog,
            [part[:n] for part, n in zip(rows.tolist(), left, strict=True)],
            [part[:n] for part, n in zip(best.tolist(), left, strict=True)],
        )

    def remove(self, user: str) -> bool:
        """Forget a user's session; whether there was one."""
        with self._lock:
            slot = self._slots.pop(user, None)
            if slot is not None:
                self._free.append(slot)
            return slot is not None

    @torch.inference_mode()
    def save(self, path: str | Path) -> None:
        r"""
        Write all sessions into a safetensors file, which appears whole or not at all.

        The file says which model and catalog the sessions belong to.
        """
        with self._lock:
            if not self._states:
                self._grow()
            slots = list(self._slots.values())
            tensors = {f"state.{name}": part[slots] for name, part in self._states.items()}
            tensors["queries"] = self._queries[slots]
            tensors |= {name: torch.from_numpy(values[slots]) for name, values in self._users.by_name.items()}
            fingerprints = Fingerprints.compute(self.model, self.catalog)
            write_sessions(path, fingerprints, list(self._slots), tensors, self.seen_limit)

    @torch.inference_mode()
    def restore(self, path: str | Path) -> None:
        r"""
        Replace all sessions by those of a file that `save` has written.

        Where the file has more than `max_users`, the most recently used ones are kept.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is no session file, is cut short or altered, belongs to another model, other
                weights or another catalog, or was saved with another `seen_limit`. The sessions stay as they were.
        """
        users, tensors = read_sessions(path, Fingerprints.compute(self.model, self.catalog), self.seen_limit)
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if found != self._shapes(len(users)):
            raise ValueError(f"{path} has not the tensors that the states of this model are. Save the sessions again.")
        evicted = max(0, len(users) - self.max_users)
        kept = len(users) - evicted
        with self._lock:
            self._clear()
            self.evictions += evicted
            while self._capacity < max(kept, 1):
                self._grow()
            for name, part in self._states.items():
                part[:kept] = tensors[f"state.{name}"][evicted:]
            self._queries[:kept] = tensors["queries"][evicted:]
            for name, values in self._users.by_name.items():
                values[:kept] = tensors[name][evicted:].numpy()
            self._slots = OrderedDict((user, slot) for slot, user in enumerate(users[evicted:]))
            self._free = list(range(self._capacity - 1, kept - 1, -1))

    def _shapes(self, n_users: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor of a file with so many users."""
        users = new_user_arrays(n_users, self._n_recent, self._n_seen_bytes)
        states, queries = self._one_event()
        of_one = {f"state.{name}": self._whole(name, part) for name, part in states.items()} | {"queries": queries}
        shapes = {name: (n_users, *part.shape[1:]) for name, part in of_one.items()}
        return shapes | {name: values.shape for name, values in users.by_name.items()}


class Session:
    r"""
    One user's live session: add what happens, recommend at any moment.

    Example:

    ```python
    >>> session = recommender.session("ann")
    >>> session.add("1193")
    True
    >>> session.recommend(top_k=5)
    ```
    """

    def __init__(self, store: SessionStore, user: str) -> None:
        self.store, self.user = store, user
        self._is_begun = user in store

    def __len__(self) -> int:
        """How many items the session has had, known to the catalog."""
        self._check_not_evicted()
        return self.store.events(self.user)

    def __repr__(self) -> str:
        return f"Session({self.user!r}, {self.store.events(self.user)} items)"

    def add(self, item_id: str | int) -> bool:
        """Add the item that the user had next; whether the catalog has it. If not, a warning says so."""
        return self.extend([item_id]) == 0

    def extend(self, item_ids: Iterable[str | int]) -> int:
        """Add items, oldest first, and return how many were unknown: left out, with a warning that counts them."""
        self._check_not_evicted()
        item_ids = raw_ids(item_ids, "item_ids")
        rows, unknown = self.store.catalog.encode_known(item_ids)
        self.store.add_rows({self.user: rows})
        self._is_begun = self._is_begun or len(rows) > 0
        warn_about_unknown_items(unknown, len(item_ids))
        return unknown

    def recommend(
        self,
        top_k: int = 10,
        exclude_seen: bool = True,
        candidates: Iterable[str | int] | None = None,
        exclude: Iterable[str | int] | None = None,
    ) -> list[Recommendation]:
        r"""
        Recommend what comes next, best first, with the arguments of [`SessionStore.recommend_many`].

        Before the first item, the most popular ones, with a warning.
        """
        self._check_not_evicted()
        candidates = None if candidates is None else raw_ids(candidates, "candidates")
        answer = self.store.recommend_many([self.user], top_k, exclude_seen, candidates, exclude)[0]
        warn_about(answer, 0, len(candidates or []))
        return answer.recommendations

    def end(self) -> None:
        """Forget everything."""
        self.store.remove(self.user)
        self._is_begun = False

    def _check_not_evicted(self) -> None:
        if self._is_begun and self.user not in self.store:
            raise LookupError(
                f"The session of user {self.user!r} is no longer there: it was removed, or evicted because more than "
                f"`max_users={self.store.max_users}` others were used since. Begin another one with the user's "
                "history, or make a `SessionStore` with a higher `max_users`."
            )
