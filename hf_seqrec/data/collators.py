"""Batches straight from the flat array of events: one gather, whatever the number of users."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .histories import HistoryBatch
from .seeded_draws import below, more_draws, uniform, user_draws

IGNORED_LABEL = -100


class NextItemCollator:
    r"""
    Batches for learning the next item, at every position or only after each history's last one.

    Returns `input_ids`, `attention_mask` and `labels`, int64 `[b, l]`, right-padded with 0 (labels with -100) to the
    longest history of the batch. `labels` are already shifted: `labels[i, t]` follows `input_ids[i, t]`, or is -100
    where nothing is asked. After the last item alone they are `[b]`.

    Args:
        max_length (`int`):
            Most positions that the model sees; they take `max_length + 1` consecutive events of a longer history.
        window (`str`, *optional*, defaults to `"last"`):
            Which events: the most recent ones (`"last"`), or in each epoch others, uniformly at random (`"random"`). A
            draw depends on (seed, epoch, user) and nothing else, so workers, ranks and resumed runs agree. The epoch
            reaches it through the dataset (`HistoryDataset.set_epoch`).
        seed (`int`, *optional*, defaults to 0):
            Of the random windows.
        train_on (`str`, *optional*, defaults to `"every_position"`):
            Where a next item is asked for: at every position, or (`"last_position"`) at the last one alone.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        max_length: int,
        window: Literal["last", "random"] = "last",
        seed: int = 0,
        train_on: Literal["every_position", "last_position"] = "every_position",
    ):
        check_max_length(max_length)
        check_window(window)
        if train_on not in ("every_position", "last_position"):
            raise ValueError(f'`train_on` must be "every_position" or "last_position", got {train_on!r}.')
        self.max_length, self.window, self.seed, self.train_on = max_length, window, seed, train_on

    def __call__(self, examples: Sequence[HistoryBatch]) -> dict[str, Tensor]:
        batch = HistoryBatch.join(examples)
        stops = batch.stops
        if self.window == "random":
            spare = np.maximum(stops - batch.starts - (self.max_length + 1), 0)
            stops = stops - below(user_draws(batch.users, self.seed, batch.epoch), spare + 1)
        events = padded(batch.item_rows, batch.starts, stops, self.max_length + 1)  # [b, l + 1]
        if events.shape[1] < 2:
            raise ValueError("every history must have at least 2 events to learn a next item from, got none that has.")
        input_ids, labels = events[:, :-1], events[:, 1:]
        real = labels > 0
        if self.train_on == "last_position":
            labels = labels[np.arange(len(labels)), real.sum(axis=1) - 1]  # [b]
        return {
            "input_ids": torch.from_numpy(np.where(real, input_ids, 0)),
            "attention_mask": torch.from_numpy(real.astype(np.int64)),
            "labels": torch.from_numpy(np.where(labels > 0, labels, IGNORED_LABEL)),
        }


class RankingCollator:
    r"""
    Batches for ranking each user's held-out item.

    Returns `input_ids` and `attention_mask` (`[b, l]`, the most recent `max_length` events, right-padded with 0),
    `targets` (`[b]`), `labels` (the same: what a model is asked, and computes a loss for) and `seen_items` (`[b, s]`:
    every row of the whole history, not only of the window, padded with 0; the target is among them if the user had it
    before). All int64.

    Args:
        max_length (`int`): Most positions that the model sees.

    Raises:
        ValueError: if `max_length` is below 1, or the histories come without targets.
    """

    def __init__(self, max_length: int):
        check_max_length(max_length)
        self.max_length = max_length

    def __call__(self, examples: Sequence[HistoryBatch]) -> dict[str, Tensor]:
        batch = HistoryBatch.join(examples)
        if batch.targets is None:
            raise ValueError("`examples` must have targets; use the validation or test view of `leave_one_out`.")
        lengths = batch.stops - batch.starts
        input_ids = padded(batch.item_rows, batch.starts, batch.stops, self.max_length)
        seen_items = padded(batch.item_rows, batch.starts, batch.stops, int(lengths.max()))
        targets = torch.from_numpy(batch.targets)
        return {
            "input_ids": torch.from_numpy(input_ids),
            "attention_mask": torch.from_numpy((input_ids > 0).astype(np.int64)),
            "labels": targets,
            "targets": targets,
            "seen_items": torch.from_numpy(seen_items),
        }


def padded(
    item_rows: npt.NDArray[np.int32],
    starts: npt.NDArray[np.int64],
    stops: npt.NDArray[np.int64],
    max_events: int,
) -> npt.NDArray[np.int64]:
    """Copy the last `max_events` events before each stop into `[b, l]`, padded on the right with 0."""
    lengths = np.minimum(stops - starts, max_events)
    positions = np.arange(lengths.max())
    real = positions < lengths[:, None]
    # Padding reads event 0 of the dataset, and is then blanked.
    places = np.where(real, (stops - lengths)[:, None] + positions, 0)
    return np.where(real, item_rows[places], 0).astype(np.int64)


def check_max_length(max_length: int, least: int = 1) -> None:
    """Raise unless a history has `least` positions or more."""
    if max_length < least:
        raise ValueError(f"`max_length` must be at least {least}, got {max_length}.")


def check_window(window: str) -> None:
    """Raise unless it is one of the two ways to cut a longer history."""
    if window not in ("last", "random"):
        raise ValueError(f'`window` must be "last" or "random", got {window!r}.')


class ClozeCollator:
    r"""
    Batches in which some items are hidden behind the mask row and asked for (Sun et al. 2019,
    https://arxiv.org/abs/1904.06690, Section 3.6).

    Returns `input_ids`, `attention_mask` and `labels`, int64 `[b, l]`, right-padded with 0 (labels with -100).
    `labels[i, t]` is the item that the mask row hides in `input_ids[i, t]`, and -100 where nothing is hidden.

    As the authors' `gen_data_fin.py`: of a history of n items exactly `round(mask_probability * n)` are hidden and at
    least one, chosen without replacement; now and then only the last one is, which is what recommending looks like.
    All of them become the mask row (the authors' `mask_prob=1.0`), none another item. Unlike there, where each history
    is masked in ten ways once and for all, every epoch draws anew. A draw depends on (seed, epoch, user, window) and
    nothing else, so workers, ranks and resumed runs agree.

    Args:
        max_length (`int`):
            Most positions that the model sees.
        mask_row (`int`):
            Row that hides an item.
        mask_probability (`float`, *optional*, defaults to 0.2):
            Share of the items that are hidden, in (0, 1).
        mask_last_probability (`float`, *optional*, defaults to 1/11):
            How often only the last item is hidden, in [0, 1].
        window (`str`, *optional*, defaults to `"last"`):
            Which events of a longer history: the most recent ones (`"last"`), or any (`"random"`).
        seed (`int`, *optional*, defaults to 0):
            Of masks and windows.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(
        self,
        max_length: int,
        mask_row: int,
        mask_probability: float = 0.2,
        mask_last_probability: float = 1 / 11,
        window: Literal["last", "random"] = "last",
        seed: int = 0,
    ):
        check_max_length(max_length, least=2)
        check_window(window)
        if not 0.0 < mask_probability < 1.0:
            raise ValueError(f"`mask_probability` must be in (0, 1), got {mask_probability}.")
        if not 0.0 <= mask_last_probability <= 1.0:
            raise ValueError(f"`mask_last_probability` must be in [0, 1], got {mask_last_probability}.")
        self.max_length, self.mask_row, self.window, self.seed = max_length, mask_row, window, seed
        self.mask_probability, self.mask_last_probability = mask_probability, mask_last_probability

    def __call__(self, examples: Sequence[HistoryBatch]) -> dict[str, Tensor]:
        batch = HistoryBatch.join(examples)
        draws = user_draws(batch.users, self.seed, batch.epoch)
        if batch.windows is not None:
            draws = more_draws(draws, batch.windows)
        stops = batch.stops
        if self.window == "random":
            stops = stops - below(draws, np.maximum(stops - batch.starts - self.max_length, 0) + 1)
        items = padded(batch.item_rows, batch.starts, stops, self.max_length)  # [b, l]
        lengths = (items > 0).sum(axis=1, keepdims=True)
        positions = np.arange(items.shape[1])

        n_hidden = np.maximum(np.rint(self.mask_probability * lengths), 1)
        # A random order of each history's items: padding, at infinity, comes last.
        order = np.where(items > 0, uniform(more_draws(more_draws(draws, 1)[:, None], positions)), np.inf)
        is_hidden = order.argsort(axis=1).argsort(axis=1) < n_hidden
        only_last = uniform(more_draws(draws, 2))[:, None] < self.mask_last_probability
        is_hidden = np.where(only_last, positions == lengths - 1, is_hidden)
        return {
            "input_ids": torch.from_numpy(np.where(is_hidden, self.mask_row, items)),
            "attention_mask": torch.from_numpy((items > 0).astype(np.int64)),
            "labels": torch.from_numpy(np.where(is_hidden, items, IGNORED_LABEL)),
        }
