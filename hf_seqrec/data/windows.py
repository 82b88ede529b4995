"""Several windows of one long history, so that all of it is learned from: more places, nothing copied."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .histories import HistoryDataset


class Windows(NamedTuple):
    """
    Windows of some histories: a history's windows one after the other, oldest first.

    Fields:
        histories (`(n,)` int64): Which history each is of.
        starts, stops (`(n,)` int64): Its places.
        numbers (`(n,)` int64): How many strides it ends before its history does.
    """

    histories: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    stops: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]


def sliding_windows(dataset: HistoryDataset, max_length: int, stride: int | None = None) -> HistoryDataset:
    r"""
    Cut the histories of a training view into windows of at most `max_length + 1` events, `stride` events apart.

    A window is what a batch takes: `max_length` positions, each with the event that follows. The newest window ends
    with the history, the others 1, 2, 3, ... strides earlier, until the first event is in one. So every event but a
    history's first is asked for, with `stride = max_length` exactly once: neighbouring windows then share one event,
    asked for in the older and the first input of the newer. With a shorter stride they share
    `max_length + 1 - stride`: an event is asked for about `max_length / stride` times, after contexts of different
    length. Only the oldest window of a history can be shorter than the others. (A model that learns at the last
    position alone asks for the last event of each window: for all of them take a stride of 1.)

    Args:
        dataset ([`HistoryDataset`]): The training view of a split.
        max_length (`int`): Most positions that the model sees.
        stride (`int`, *optional*): From one window's end to the next, 1 to `max_length`, which is the default.

    Raises:
        ValueError: if `stride` is out of range, or the view has targets to rank.

    Example:

    ```python
    >>> view = sliding_windows(train, max_length=3)  # a user with the items 1 2 3 4 5 6 7 8
    >>> [view.history(index).tolist() for index in range(len(view))]
    [[1, 2], [2, 3, 4, 5], [5, 6, 7, 8]]
    ```
    """
    if dataset.targets is not None:
        raise ValueError("`dataset` must be the training view of a split, got one with targets to rank.")
    windows = cut_into_windows(dataset.starts, dataset.stops, max_length, stride)
    return HistoryDataset(
        dataset.sequences,
        dataset.users[windows.histories],
        windows.starts,
        windows.stops,
        has_targets=False,
        windows=windows.numbers,
    )


def cut_into_windows(
    starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64], max_length: int, stride: int | None = None
) -> Windows:
    """Cut histories, given as places `(b,)`, as [`sliding_windows`] says."""
    stride = max_length if stride is None else stride
    n_windows = count_windows(stops - starts, max_length, stride)
    histories = np.repeat(np.arange(len(starts)), n_windows)
    numbers = np.cumsum(n_windows)[histories] - np.arange(len(histories)) - 1
    window_stops = stops[histories] - numbers * stride
    window_starts = np.maximum(window_stops - (max_length + 1), starts[histories])
    return Windows(histories, window_starts, window_stops, numbers)


def count_windows(lengths: npt.NDArray[np.int64], max_length: int, stride: int) -> npt.NDArray[np.int64]:
    """How many windows histories of these lengths, at least 1, are cut into, `(b,)`."""
    check_stride(stride, max_length)
    return 1 + -(-np.maximum(lengths - (max_length + 1), 0) // stride)


def check_stride(stride: int, max_length: int) -> None:
    """Raise unless windows of this length and stride leave no event out."""
    if not 1 <= stride <= max_length:
        raise ValueError(
            f"`window_stride` must be between 1 and `max_length`, {max_length}, got {stride}. With a longer stride "
            "some events would be in no window."
        )


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
