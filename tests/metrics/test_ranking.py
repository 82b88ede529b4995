import doctest
import math

import numpy as np
import pytest
import torch

from hf_seqrec.metrics import bootstrap, breakdowns, item_lists, negatives, ranking
from hf_seqrec.metrics.ranking import (
    hit_rate,
    mrr,
    ndcg,
    ranking_metrics,
    ranking_values,
    ranks_from_candidates,
    ranks_from_scores,
)

# Row 0 is padding. Best first: user 0 has 3, 1, 4, 2; user 1 has 2, 4, 1, 3; user 2 gives every item the same.
SCORES = [
    [9.0, 0.3, 0.1, 0.4, 0.2],
    [9.0, 0.2, 0.4, 0.1, 0.3],
    [9.0, 0.5, 0.5, 0.5, 0.5],
]


@pytest.mark.parametrize(
    ("metric", "k", "expected"),
    [
        # Ranks 0, 1, 2, 10.
        (hit_rate, 1, 1 / 4),
        (hit_rate, 2, 2 / 4),
        (hit_rate, 10, 3 / 4),
        (hit_rate, 11, 4 / 4),
        (ndcg, 1, 1 / 4),
        (ndcg, 2, (1 + 1 / math.log2(3)) / 4),
        (ndcg, 3, (1 + 1 / math.log2(3) + 1 / 2) / 4),
        (ndcg, 11, (1 + 1 / math.log2(3) + 1 / 2 + 1 / math.log2(12)) / 4),
        (mrr, 1, 1 / 4),
        (mrr, 3, (1 + 1 / 2 + 1 / 3) / 4),
        (mrr, 11, (1 + 1 / 2 + 1 / 3 + 1 / 11) / 4),
    ],
)
def test_metrics_by_hand(metric, k, expected):
    assert metric([0, 1, 2, 10], k) == pytest.approx(expected, abs=1e-12)


def test_ranking_metrics_names_every_metric_and_cut_off():
    metrics = ranking_metrics(np.array([0, 4, 19, 20]))
    assert list(metrics) == [f"{name}@{k}" for k in (1, 5, 10, 20) for name in ("hr", "ndcg", "mrr")]
    assert [metrics[f"hr@{k}"] for k in (1, 5, 10, 20)] == [0.25, 0.5, 0.5, 0.75]
    for k in (1, 5, 10, 20):
        assert metrics[f"ndcg@{k}"] == ndcg([0, 4, 19, 20], k)
        assert metrics[f"mrr@{k}"] == mrr([0, 4, 19, 20], k)
    assert all(type(value) is float for value in metrics.values())


def test_ranking_metrics_takes_one_cut_off():
    assert ranking_metrics([1], k=2) == {"hr@2": 1.0, "ndcg@2": pytest.approx(1 / math.log2(3)), "mrr@2": 0.5}


def test_ranking_values_are_per_user():
    values = ranking_values([0, 2, 5], k=[3])
    np.testing.assert_allclose(values["hr@3"], [1, 1, 0])
    np.testing.assert_allclose(values["ndcg@3"], [1, 0.5, 0])
    np.testing.assert_allclose(values["mrr@3"], [1, 1 / 3, 0])


def test_ranks_by_hand():
    np.testing.assert_array_equal(ranks_from_scores(SCORES, [3, 3, 3]), [0, 3, 3])
    np.testing.assert_array_equal(ranks_from_scores(SCORES, [2, 1, 1]), [3, 2, 3])


def test_seen_items_do_not_compete():
    # User 0: 3 and 1 are gone, 4 is still above 2. User 1: nothing is gone (padding). User 2: 1 and 2 are gone.
    np.testing.assert_array_equal(ranks_from_scores(SCORES, [2, 1, 4], seen=[[3, 1], [0, 0], [1, 2]]), [1, 2, 1])


def test_seen_items_may_be_ragged():
    seen = [[3, 1], [], [1]]
    np.testing.assert_array_equal(ranks_from_scores(SCORES, [2, 1, 4], seen=seen), [1, 2, 2])


def test_the_target_takes_part_even_when_seen():
    np.testing.assert_array_equal(ranks_from_scores(SCORES[:1], [1], seen=[[1]]), [1])
    np.testing.assert_array_equal(ranks_from_scores(SCORES[:1], [1], seen=[[1, 3]]), [0])


def test_a_target_at_minus_infinity_is_behind_all_that_compete():
    scores = [[0.0, -np.inf, 0.5, -np.inf, 0.1]]
    np.testing.assert_array_equal(ranks_from_scores(scores, [1]), [3])
    # A seen item does not compete, whatever it scores.
    np.testing.assert_array_equal(ranks_from_scores(scores, [1], seen=[[3]]), [2])


def test_the_padding_row_never_competes_unless_it_is_an_item():
    np.testing.assert_array_equal(ranks_from_scores(SCORES[:1], [3], padding_row=0), [0])
    np.testing.assert_array_equal(ranks_from_scores(SCORES[:1], [3], padding_row=None), [1])
    np.testing.assert_array_equal(ranks_from_scores([[0.1, 0.2, 0.9]], [1], padding_row=2), [0])


@pytest.mark.parametrize("constant", [0.0, 1.0, -np.inf, np.inf])
def test_a_constant_scorer_does_not_look_good(constant):
    scores = np.full((50, 101), constant)
    ranks = ranks_from_scores(scores, np.arange(1, 51))
    np.testing.assert_array_equal(ranks, np.full(50, 99))
    assert set(ranking_metrics(ranks).values()) == {0.0}


def test_ranks_are_those_of_a_sort_where_nothing_ties():
    generator = np.random.default_rng(0)
    scores = generator.permuted(np.tile(np.arange(40.0), (30, 1)), axis=1)
    targets = generator.integers(1, 40, size=30)
    seen = generator.integers(0, 40, size=(30, 7))
    for user in range(30):
        left = [row for row in range(1, 40) if row == targets[user] or row not in seen[user]]
        best_first = sorted(left, key=lambda row: -scores[user, row])
        expected = best_first.index(targets[user])
        assert ranks_from_scores(scores, targets, seen)[user] == expected


def test_ranks_take_torch_tensors():
    ranks = ranks_from_scores(torch.tensor(SCORES), torch.tensor([2, 1, 4]), torch.tensor([[3, 1], [0, 0], [1, 2]]))
    np.testing.assert_array_equal(ranks, [1, 2, 1])


def test_candidates_by_hand():
    scores = [[0.5, 0.9, 0.1, 0.7], [0.5, 0.5, 0.1, 0.2], [0.5, 0.1, 0.2, 0.3]]
    np.testing.assert_array_equal(ranks_from_candidates(scores), [2, 1, 0])


@pytest.mark.parametrize("module", [ranking, negatives, bootstrap, breakdowns, item_lists])
def test_the_examples_in_the_docstrings_are_true(module):
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner()
    for name, function in vars(module).items():
        if getattr(function, "__module__", None) == module.__name__ and function.__doc__:
            text = function.__doc__.replace("```python", "").replace("```", "")
            runner.run(parser.get_doctest(text, vars(module).copy(), name, None, None))
    assert runner.summarize().attempted > 0
    assert runner.summarize().failed == 0


class TestErrors:
    def test_nan_names_its_row(self):
        scores = np.zeros((3, 4))
        scores[1, 2] = np.nan
        with pytest.raises(ValueError, match=r"NaN, found in row 1 \(1 of 3 rows\)"):
            ranks_from_scores(scores, [1, 1, 1])
        with pytest.raises(ValueError, match="NaN, found in row 1"):
            ranks_from_candidates(scores)

    @pytest.mark.parametrize("k", [0, -1])
    def test_cut_off_below_one(self, k):
        for metric in (hit_rate, ndcg, mrr, ranking_metrics):
            with pytest.raises(ValueError, match=f"`k` must be at least 1, got {k}"):
                metric([0, 1], k)

    @pytest.mark.parametrize("k", [1.5, "10", True, None])
    def test_cut_off_of_another_type(self, k):
        with pytest.raises(TypeError, match="`k` must be an integer"):
            hit_rate([0], k)

    def test_no_cut_off(self):
        with pytest.raises(ValueError, match="at least one cut-off"):
            ranking_metrics([0], k=[])

    @pytest.mark.parametrize(
        ("ranks", "found"), [([0, -1], "-1 at row 1"), ([0.0, np.nan], "nan at row 1"), ([0.5], "0.5 at row 0")]
    )
    def test_ranks_that_are_none(self, ranks, found):
        for metric in (hit_rate, ndcg, mrr):
            with pytest.raises(ValueError, match=f"whole numbers from 0, got {found}"):
                metric(ranks, 10)

    def test_no_ranks(self):
        with pytest.raises(ValueError, match=r"one rank per user, got shape \(0,\)"):
            ranking_metrics([])

    def test_ranks_of_another_shape(self):
        with pytest.raises(ValueError, match=r"one rank per user, got shape \(1, 2\)"):
            ranking_metrics([[0, 1]])

    @pytest.mark.parametrize("target", [5, -1])
    def test_target_outside_the_catalog(self, target):
        with pytest.raises(ValueError, match=f"`targets` must be rows of the catalog, 0 to 4, got {target}"):
            ranks_from_scores(SCORES, [1, 1, target])

    def test_target_is_the_padding_row(self):
        with pytest.raises(ValueError, match="row 1 is the padding row 0"):
            ranks_from_scores(SCORES, [1, 0, 1])

    def test_targets_of_another_type(self):
        with pytest.raises(TypeError, match="`targets` must be catalog rows"):
            ranks_from_scores(SCORES, [1.0, 2.0, 3.0])

    def test_too_few_targets(self):
        with pytest.raises(ValueError, match="one row for each of the 3 users"):
            ranks_from_scores(SCORES, [1])

    def test_seen_outside_the_catalog(self):
        with pytest.raises(ValueError, match="`seen` must be rows of the catalog, 0 to 4, got 5"):
            ranks_from_scores(SCORES, [1, 1, 1], seen=[[1], [5], []])

    def test_too_few_histories(self):
        with pytest.raises(ValueError, match="each of the 3 users, got 1 entries"):
            ranks_from_scores(SCORES, [1, 1, 1], seen=[[1]])

    def test_scores_of_another_shape(self):
        with pytest.raises(ValueError, match=r"a row of scores for each user, got shape \(2,\)"):
            ranks_from_scores([0.1, 0.2], [1])

    def test_candidates_without_negatives(self):
        with pytest.raises(ValueError, match="at least one negative"):
            ranks_from_candidates([[0.5]])
