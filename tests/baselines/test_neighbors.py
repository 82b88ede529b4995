import numpy as np
import pytest
import torch
from scipy import sparse

from hf_seqrec.baselines.neighbors import blocks, largest_of_each_row, neighbor_table, scores_from_neighbors


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        ([1, 1, 1, 1], [(0, 2), (2, 4)]),
        ([5, 1, 1], [(0, 1), (1, 3)]),  # the first costs too much for any block
        ([0, 0, 2, 1], [(0, 3), (3, 4)]),
        ([], []),
    ],
)
def test_blocks(costs, expected):
    assert list(blocks(np.array(costs, dtype=np.int64), most=2)) == expected


def test_largest_of_each_row():
    matrix = sparse.csr_array([[3.0, 0, 1, 2, 3], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]])
    # Of equal ones those of the lowest columns.
    np.testing.assert_array_equal(
        largest_of_each_row(matrix, 2).toarray(), [[3, 0, 0, 0, 3], [1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]]
    )
    np.testing.assert_array_equal(largest_of_each_row(matrix, 5).toarray(), matrix.toarray())


@pytest.mark.parametrize("pairs_at_once", [1, 10, 10**6])
def test_a_table_in_blocks(pairs_at_once):
    dense = np.random.default_rng(0).integers(0, 4, (9, 9)).astype(np.float64)
    costs = np.full(9, 9)
    table = neighbor_table(costs, lambda first, end: sparse.csr_array(dense[first:end]), 3, pairs_at_once)
    assert table.dtype == np.float32
    assert table.indices.dtype == np.int32
    np.testing.assert_array_equal(table.toarray(), largest_of_each_row(sparse.csr_array(dense), 3).toarray())


def test_scores_by_hand():
    table = sparse.csr_array(np.array([[0, 0, 0, 0], [0, 0, 0.5, 0], [0, 1, 0, 0.25], [0, 0, 0, 0]], dtype=np.float32))
    without_evidence = np.array([-1, -0.9, -0.8, -0.7], dtype=np.float32)
    histories = torch.tensor([[1, 2], [1, 0], [3, 0]])
    scores = scores_from_neighbors(histories, table, without_evidence, max_history=5, decay=0.5)
    # 2 alone leads to 1 and 3, and half of 1's weight to 2; 3 leads nowhere.
    expected = [[-np.inf, 1, 0.25, 0.25], [-np.inf, -0.9, 0.5, -0.7], [-np.inf, -0.9, -0.8, -0.7]]
    np.testing.assert_allclose(scores, np.array(expected, dtype=np.float32))
