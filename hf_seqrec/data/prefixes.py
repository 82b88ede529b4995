"""Every prefix of a history as a sample of its own, which learns at its last position: more places, nothing copied."""

import numpy as np

from .splits import HistoryDataset


def every_prefix(dataset: HistoryDataset, max_length: int) -> HistoryDataset:
    r"""
    Turn a history of n events into the n - 1 samples that end with its second, third, ... last event.

    Each holds the `max_length + 1` events up to that one, or all where there are fewer. With batches that learn at the
    last position alone, every event but a history's first is asked for once an epoch, as at every position of the
    whole history, but each from a sequence that ends there. This is what RecBole calls data augmentation
    (https://github.com/RUCAIBox/RecBole, `SequentialDataset.data_augmentation`).

    Args:
        dataset ([`HistoryDataset`]): The training view of a split.
        max_length (`int`): Most positions that the model sees.

    Raises:
        ValueError: if the view has targets to rank.

    Example:

    ```python
    >>> view = every_prefix(train, max_length=2)  # a user with the items 1 2 3 4
    >>> [view.history(index).tolist() for index in range(len(view))]
    [[1, 2], [1, 2, 3], [2, 3, 4]]
    ```
    """
    if dataset.targets is not None:
        raise ValueError("`dataset` must be the training view of a split, got one with targets to rank.")
    n_samples = dataset.stops - dataset.starts - 1
    histories = np.repeat(np.arange(len(dataset)), n_samples)
    # How many events of its history come after each sample: n - 2, ..., 1, 0.
    numbers = np.cumsum(n_samples)[histories] - np.arange(len(histories)) - 1
    stops = dataset.stops[histories] - numbers
    starts = np.maximum(stops - (max_length + 1), dataset.starts[histories])
    return HistoryDataset(
        dataset.sequences, dataset.users[histories], starts, stops, has_targets=False, windows=numbers
    )
