"""Batches for learning masked items from both sides (BERT4Rec)."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from .collators import IGNORED_LABEL, check_max_length, check_window, padded
from .draws import below, more_draws, uniform, user_draws
from .splits import HistoryBatch


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
