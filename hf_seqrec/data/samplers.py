"""In which order histories are trained on: a function of (seed, epoch) alone, so that ranks and resumed runs agree."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler


class ShuffledSampler(Sampler[int]):
    """
    Every index once in an order drawn from (seed, epoch), the same on every rank and after resuming.

    The Trainer and Accelerate call `set_epoch`, which passes the epoch on to the dataset. Return it from
    `Trainer._get_train_sampler`.
    """

    def __init__(self, dataset: Any, seed: int = 0):
        self.dataset, self.seed, self.epoch = dataset, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch and tell the dataset."""
        self.epoch = epoch
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        yield from self.order(np.random.default_rng((self.seed, self.epoch))).tolist()

    def order(self, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Draw the order of an epoch, `(n,)`."""
        return rng.permutation(len(self.dataset))


class LengthGroupedSampler(ShuffledSampler):
    r"""
    Histories of about the same length in one batch, so that little of it is padding. Still drawn from (seed, epoch).

    The shuffled histories are cut into pools of `pool_batches` batches, each pool is sorted by length, cut into
    batches, and the batches of all pools are shuffled. So an epoch has other batches than the one before, and no
    batch consists of the longest histories of all. The transformers sampler of this name draws from torch's global
    generator, and a run resumed with it is another run.

    Args:
        dataset ([`HistoryDataset`]): The histories.
        batch_size (`int`): Histories of a batch, those of all ranks together.
        max_length (`int`): Most positions that a batch can have: longer histories are cut, so they count as equal.
        seed (`int`, *optional*, defaults to 0): Of the order.
        pool_batches (`int`, *optional*, defaults to 50): How many batches' histories are sorted together.

    Raises:
        ValueError: if `batch_size` or `pool_batches` is below 1.
    """

    def __init__(self, dataset: Any, batch_size: int, max_length: int, seed: int = 0, pool_batches: int = 50):
        super().__init__(dataset, seed)
        for name, value in (("batch_size", batch_size), ("pool_batches", pool_batches)):
            if value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        self.batch_size, self.pool_size = batch_size, batch_size * pool_batches
        # An input position has an event that follows it.
        self.lengths = np.minimum(dataset.stops - dataset.starts, max_length + 1)

    def order(self, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Draw the order of an epoch, `(n,)`: batch after batch. The batch that is not full comes last."""
        order = super().order(rng)
        n_full = len(order) - len(order) % self.batch_size
        # The histories of the last, short batch are any of the shuffled ones.
        grouped, rest = order[:n_full], order[n_full:]
        pools = np.arange(n_full) // self.pool_size
        # Stable, and the pools stay in place: equal lengths keep their random order.
        grouped = grouped[np.lexsort((self.lengths[grouped], pools))]
        batches = grouped.reshape(-1, self.batch_size)
        return np.concatenate([batches[rng.permutation(len(batches))].ravel(), rest])


def padding_share(lengths: npt.NDArray[np.int64], batch_size: int) -> float:
    """
    Share of positions that are padding, in [0, 1), where histories of these lengths `(n,)` are batched in this order.

    Example:

    ```python
    >>> padding_share(np.array([4, 2, 3, 3]), batch_size=2)
    0.14285714285714285
    ```
    """
    firsts = np.arange(0, len(lengths), batch_size)
    longest = np.maximum.reduceat(lengths, firsts)
    positions = longest * np.diff(np.append(firsts, len(lengths)))
    return float(1 - lengths.sum() / positions.sum())
