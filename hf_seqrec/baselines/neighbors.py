"""Weights between pairs of items: counted a block of items at a time, and only the largest of each item are kept."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from scipy import sparse
from torch import Tensor, from_numpy

from .history_weights import history_weights

# Pairs of a block before equal ones are added up: with 16 bytes each, and as many again while they are sorted.
PAIRS_AT_ONCE = 15_000_000


def blocks(costs: npt.NDArray[np.int64], most: int = PAIRS_AT_ONCE) -> Iterator[tuple[int, int]]:
    """Yield `(first, end)` of consecutive rows that cost at most `most` together; a row that costs more is alone."""
    total = np.append(0, np.cumsum(costs))
    first = 0
    while first < len(costs):
        end = int(np.searchsorted(total, total[first] + most, side="right")) - 1
        end = max(end, first + 1)
        yield first, end
        first = end


def largest_of_each_row(matrix: sparse.csr_array, k: int) -> sparse.csr_array:
    """Keep the `k` largest entries of each row of a canonical matrix; among equal ones those of the lowest columns."""
    lengths = np.diff(matrix.indptr)
    is_kept = np.ones(matrix.nnz, dtype=bool)
    for row in np.flatnonzero(lengths > k).tolist():
        start, stop = matrix.indptr[row], matrix.indptr[row + 1]
        values = matrix.data[start:stop]
        least = np.partition(values, len(values) - k)[len(values) - k]
        is_above = values > least
        ties = np.flatnonzero(values == least)
        is_above[ties[: k - int(is_above.sum())]] = True
        is_kept[start:stop] = is_above
    indptr = np.append(0, np.cumsum(np.minimum(lengths, k))).astype(matrix.indptr.dtype)
    return sparse.csr_array((matrix.data[is_kept], matrix.indices[is_kept], indptr), shape=matrix.shape)


def neighbor_table(
    costs: npt.NDArray[np.int64],
    weights_of_rows: Callable[[int, int], sparse.csr_array],
    max_neighbors: int,
    pairs_at_once: int | None = None,
) -> sparse.csr_array:
    r"""
    Build a matrix of weights `(v, v)` float32 that never exists whole: row i has the largest weights from item i.

    Args:
        costs (`(v,)` int64): Most pairs that each row can have before equal ones are added up.
        weights_of_rows: Makes rows `first` to `end - 1` of the whole matrix, `(end - first, v)`.
        max_neighbors (`int`): Most entries of a row that are kept.
        pairs_at_once (`int`, *optional*): Most pairs of a block; `PAIRS_AT_ONCE` by default.
    """
    n_rows = len(costs)
    data, indices = [np.zeros(0, dtype=np.float32)], [np.zeros(0, dtype=np.int32)]
    lengths = np.zeros(n_rows, dtype=np.int64)
    for first, end in blocks(costs, pairs_at_once or PAIRS_AT_ONCE):
        kept = largest_of_each_row(weights_of_rows(first, end), max_neighbors)
        data.append(kept.data.astype(np.float32))
        indices.append(kept.indices.astype(np.int32))
        lengths[first:end] = np.diff(kept.indptr)
    # One after the other: the blocks of the first are gone when the second is joined.
    joined_data = np.concatenate(data)
    del data
    joined_indices = np.concatenate(indices)
    del indices
    # All in int32 where they fit: scipy would copy the indices to the wider type in every product.
    indptr = np.append(0, np.cumsum(lengths)).astype(np.int32 if len(joined_data) < 2**31 else np.int64)
    return sparse.csr_array((joined_data, joined_indices, indptr), shape=(n_rows, n_rows))


def scores_from_neighbors(
    input_ids: Tensor,
    table: sparse.csr_array,
    without_evidence: npt.NDArray[np.float32],
    max_history: int | None,
    decay: float,
) -> Tensor:
    r"""
    Add up the rows of a history's items, each by its age, `(b, v)`; items in none of them score `without_evidence`.

    Args:
        input_ids (`torch.LongTensor` of shape `(b, l)`): Histories, padded with 0.
        table (`(v, v)`): Weights above 0 from each item to others.
        without_evidence (`(v,)` float32): Scores below 0.
        max_history (`int`, *optional*), decay (`float`): See [`history_weights`].
    """
    n_rows = table.shape[0]
    found = history_weights(input_ids, n_rows, max_history, decay) @ table
    scores = np.tile(without_evidence, (len(input_ids), 1))
    users = np.repeat(np.arange(len(input_ids)), np.diff(found.indptr))
    scores[users, found.indices] = found.data
    scores[:, 0] = -np.inf
    return from_numpy(scores)
