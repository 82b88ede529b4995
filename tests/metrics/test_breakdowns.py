import numpy as np
import pytest

from hf_seqrec.metrics.breakdowns import Groups, grouped_metrics, groups_by_length, groups_by_popularity


def named(groups):
    return [groups.names[place] for place in groups.of_user]


def test_lengths_by_edges():
    groups = groups_by_length([9, 3, 10, 49, 50, 12], edges=[10, 50])
    assert groups.names == ["3-9", "10-49", "50+"]
    assert named(groups) == ["3-9", "3-9", "10-49", "10-49", "50+", "10-49"]


def test_lengths_by_quartiles():
    groups = groups_by_length(np.arange(1, 101))
    assert groups.names == ["1-25", "26-50", "51-75", "76+"]
    assert np.bincount(groups.of_user).tolist() == [25, 25, 25, 25]


def test_equal_lengths_are_one_group():
    assert groups_by_length([5, 5, 5]).names == ["5+"]
    # Most are of the shortest length, so the lower quartiles coincide with it.
    groups = groups_by_length([3] * 6 + [4, 8])
    assert groups.names == ["3", "4+"]
    assert np.bincount(groups.of_user).tolist() == [6, 2]


def test_a_first_group_without_users():
    groups = groups_by_length([20, 30], edges=[5, 25])
    assert named(groups) == ["5-24", "25+"]


def test_popularity_by_hand():
    # 12 interactions. Before each item, most popular first: 0, 5/12 | 5 + 4 = 9/12 | 10/12, 11/12, all of them.
    counts = [0, 1, 5, 4, 1, 1, 0]
    groups = groups_by_popularity([2, 3, 1, 4, 5, 6], counts)
    assert groups.names == ["head", "mid", "tail"]
    assert named(groups) == ["head", "mid", "tail", "tail", "tail", "tail"]


def test_equal_counts_stay_together():
    assert named(groups_by_popularity([1, 2, 3, 4], [0, 1, 1, 1, 1])) == ["head"] * 4


def test_other_shares():
    counts = [0, 8, 1, 1]
    assert named(groups_by_popularity([1, 2], counts, shares=(0.5, 0.9))) == ["head", "mid"]
    assert named(groups_by_popularity([1, 2], counts, shares=(0.5, 0.8))) == ["head", "tail"]


def test_metrics_of_groups_by_hand():
    groups = Groups(["a", "nobody", "b"], np.array([0, 2, 0]))
    assert grouped_metrics([0, 1, 9], groups, k=2) == {
        "a": {"n_users": 2, "hr@2": 0.5, "ndcg@2": 0.5, "mrr@2": 0.5},
        "b": {"n_users": 1, "hr@2": 1.0, "ndcg@2": pytest.approx(1 / np.log2(3)), "mrr@2": 0.5},
    }


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: groups_by_length([]), "the length of each user's history"),
        (lambda: groups_by_length([1], edges=[5, 5]), r"`edges` must rise, got \[5, 5\]"),
        (lambda: groups_by_popularity([1], [0, 0]), "not all 0"),
        (lambda: groups_by_popularity([1], [0, np.nan]), "must be finite"),
        (lambda: groups_by_popularity([2], [0, 1]), "item rows in 1 to 1, got 2"),
        (lambda: groups_by_popularity([0], [0, 1]), "item rows in 1 to 1, got 0"),
        (lambda: groups_by_popularity([1], [0, 1], shares=(0.5, 0.5)), "two rising numbers"),
        (lambda: grouped_metrics([1, 2], Groups(["a"], np.array([0]))), "each of the 2 ranks, got 1"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
