import numpy as np
import pytest
import torch

from hf_seqrec.baselines.history_weights import history_weights


def test_by_hand():
    # Ages 2 1 0: item 1 is at ages 2 and 0.
    weights = history_weights(torch.tensor([[1, 2, 1], [3, 0, 0]]), 4, max_history=None, decay=0.5)
    np.testing.assert_array_equal(weights.toarray(), [[0, 1.25, 0.5, 0], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("max_history", "expected"), [(1, [0, 0, 0, 1]), (2, [0, 0, 0.9, 1]), (9, [0, 0.9**2, 0.9, 1])]
)
def test_only_the_most_recent_items(max_history, expected):
    weights = history_weights(torch.tensor([[1, 2, 3]]), 4, max_history, decay=0.9)
    np.testing.assert_allclose(weights.toarray()[0], expected)


def test_the_side_of_the_padding_makes_no_difference():
    right, left = torch.tensor([[1, 2, 3, 0, 0]]), torch.tensor([[0, 0, 1, 2, 3]])
    expected = history_weights(right, 4, 2, 0.7).toarray()
    np.testing.assert_array_equal(history_weights(left, 4, 2, 0.7).toarray(), expected)


def test_without_decay_all_weigh_the_same():
    np.testing.assert_array_equal(history_weights(torch.tensor([[2, 1, 2]]), 3, None, 1).toarray(), [[0, 1, 2]])


def test_only_the_last_with_a_decay_of_0():
    np.testing.assert_array_equal(history_weights(torch.tensor([[2, 1]]), 3, None, 0).toarray(), [[0, 1, 0]])


def test_an_empty_history_weighs_nothing():
    np.testing.assert_array_equal(history_weights(torch.tensor([[0, 0]]), 3, None, 0.5).toarray(), [[0, 0, 0]])
