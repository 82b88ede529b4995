"""The state of many users in a few tensors: arrays that grow with them."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .recommendation import Rows


class NewEvents(NamedTuple):
    """New catalog rows of a user, and what has to be encoded for them: more, where the window of a model moves."""

    user: str
    rows: Rows
    encoded: Rows


class UserArrays(NamedTuple):
    r"""
    What is kept of each user besides the model's state, at the user's slot.

    Fields:
        events (`(capacity,)` int64): Items so far.
        placed (`(capacity,)` int64): How many of them the state has seen since it last began.
        recent (`(capacity, n_recent)` int32): Rows of the last items; item number `i` stands at `i % n_recent`.
        seen (`(capacity, bytes)` uint8): One bit for each catalog row.
    """

    events: npt.NDArray[np.int64]
    placed: npt.NDArray[np.int64]
    recent: npt.NDArray[np.int32]
    seen: npt.NDArray[np.uint8]

    @property
    def by_name(self) -> dict[str, npt.NDArray[Any]]:
        """All arrays by their names."""
        return self._asdict()

    def forget(self, slot: int) -> None:
        """Make a slot that of a user without events."""
        for values in self.by_name.values():
            values[slot] = 0

    def add(self, slot: int, rows: Rows, n_encoded: int, goes_on: bool) -> None:
        """Note new items of a user."""
        n_recent = self.recent.shape[1]
        if n_recent:
            last = rows[-n_recent:]
            numbers = self.events[slot] + np.arange(len(rows) - len(last), len(rows))
            self.recent[slot, numbers % n_recent] = last
        if self.seen.shape[1]:
            np.bitwise_or.at(self.seen[slot], rows >> 3, np.uint8(128) >> (rows & 7).astype(np.uint8))
        self.events[slot] += len(rows)
        self.placed[slot] = n_encoded + (self.placed[slot] if goes_on else 0)

    def last(self, slot: int, n: int) -> Rows:
        """Rows of a user's last `n` items or fewer, oldest first; at most as many as are kept."""
        n = min(n, int(self.events[slot]), self.recent.shape[1])
        numbers = self.events[slot] - n + np.arange(n)
        return self.recent[slot, numbers % max(1, self.recent.shape[1])].astype(np.int64)

    def mask(self, scores: Tensor, slots: list[int], seen_limit: int | None) -> None:
        """Set the scores `(b, v)` of items that a user has had to -inf: of all, or of the last `seen_limit`."""
        if seen_limit is None:
            bits = np.unpackbits(self.seen[slots], axis=1, count=scores.shape[1]).view(np.bool_)
            scores.masked_fill_(torch.from_numpy(bits).to(scores.device), -torch.inf)
            return
        for scores_of_user, slot in zip(scores, slots, strict=True):
            scores_of_user[torch.from_numpy(self.last(slot, seen_limit)).to(scores.device)] = -torch.inf


def new_user_arrays(capacity: int, n_recent: int, n_seen_bytes: int) -> UserArrays:
    return UserArrays(
        events=np.zeros(capacity, np.int64),
        placed=np.zeros(capacity, np.int64),
        recent=np.zeros((capacity, n_recent), np.int32),
        seen=np.zeros((capacity, n_seen_bytes), np.uint8),
    )


def is_ragged(name: str) -> bool:
    """Whether a part of the state, keys or values, has as many places as the longest history."""
    return name.endswith((".keys", ".values"))


def _index(slots: list[int]) -> slice | list[int]:
    """Index of users in the tensors of all; one user is not copied."""
    return slice(slots[0], slots[0] + 1) if len(slots) == 1 else slots


def _resized(part: Tensor, capacity: int) -> Tensor:
    larger = part.new_zeros(capacity, *part.shape[1:])
    larger[: len(part)] = part
    return larger
