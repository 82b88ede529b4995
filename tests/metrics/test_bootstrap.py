import itertools

import numpy as np
import pytest

from hf_seqrec.metrics import bootstrap
from hf_seqrec.metrics.bootstrap import bootstrap_intervals, paired_bootstrap
from hf_seqrec.metrics.ranking import ranking_metrics, ranking_values


@pytest.fixture
def ranks():
    return np.random.default_rng(3).geometric(0.05, size=400) - 1


def test_the_same_law_as_drawing_users_one_by_one(ranks):
    drawn = np.random.default_rng(0).integers(200, size=(5000, 200))
    values = ranking_values(ranks[:200], k=[1, 10])
    for name, interval in bootstrap_intervals(ranks[:200], k=[1, 10], n_resamples=5000).items():
        expected = np.quantile(values[name][drawn].mean(axis=1), [0.025, 0.975])
        # One user more or less; the intervals are five to thirty times as wide.
        np.testing.assert_allclose(interval, expected, atol=1.01 / 200)


def test_as_wide_as_a_normal_interval_of_a_share():
    # HR of 400 users is a share: 1.96 * sqrt(0.2 * 0.8 / 400) to either side.
    low, high = bootstrap_intervals([0] * 80 + [99] * 320, k=10, n_resamples=20_000)["hr@10"]
    assert low == pytest.approx(0.2 - 0.0392, abs=0.003)
    assert high == pytest.approx(0.2 + 0.0392, abs=0.003)


def test_contains_the_metric_and_narrows_with_users(ranks):
    few, many = bootstrap_intervals(ranks[:100]), bootstrap_intervals(np.tile(ranks, 25))
    for name, value in ranking_metrics(ranks).items():
        assert many[name][0] <= value <= many[name][1]
        assert many[name][1] - many[name][0] < few[name][1] - few[name][0]


def test_the_seed_decides(ranks):
    assert bootstrap_intervals(ranks, seed=1) == bootstrap_intervals(ranks, seed=1) != bootstrap_intervals(ranks)


def test_less_confidence_is_narrower(ranks):
    wide, narrow = bootstrap_intervals(ranks, k=10), bootstrap_intervals(ranks, k=10, confidence=0.5)
    assert wide["hr@10"][0] < narrow["hr@10"][0] < narrow["hr@10"][1] < wide["hr@10"][1]


def test_all_users_alike_leave_no_doubt():
    assert bootstrap_intervals([3, 3, 3], k=5)["hr@5"] == (1.0, 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_resamples": 0}, "`n_resamples` must be at least 1, got 0"),
        ({"confidence": 1.0}, r"`confidence` must be in \(0, 1\), got 1"),
        ({"k": 0}, "`k` must be at least 1"),
        ({"ranks": []}, "one rank per user"),
        ({"ranks": [-1]}, "whole numbers from 0"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_intervals(**{"ranks": [1, 2]} | arguments)


class TestPaired:
    def test_all_resamples_of_a_few_users(self):
        """Every one of the 5**5 ways to draw five users, each as likely."""
        ranks, other_ranks = [0, 0, 3, 1, 9], [1, 9, 0, 9, 9]
        found = paired_bootstrap(ranks, other_ranks, k=[1, 10], n_resamples=40_000)
        values, other_values = ranking_values(ranks, [1, 10]), ranking_values(other_ranks, [1, 10])
        draws = np.array(list(itertools.product(range(5), repeat=5)))
        for name, difference in found.items():
            of_users = values[name] - other_values[name]
            every = of_users[draws].mean(axis=1)
            assert difference.difference == pytest.approx(of_users.mean())
            share = min((every <= 1e-12).mean(), (every >= -1e-12).mean())
            # Three standard errors of a share out of 40,000.
            assert difference.p_value == pytest.approx(
                min(1, 2 * share), abs=6 * (share * (1 - share) / 40_000) ** 0.5 + 1e-4
            )
            low, high = np.quantile(every, [0.024, 0.976]), np.quantile(every, [0.026, 0.974])
            assert low[0] - 1e-9 <= difference.low <= high[0] + 1e-9
            assert high[1] - 1e-9 <= difference.high <= low[1] + 1e-9

    def test_by_hand(self):
        # One of three users is better off: no resample is below 0, and (2/3)**3 = 8/27 of them are at 0.
        found = paired_bootstrap([0, 5, 5], [5, 5, 5], k=1, n_resamples=100_000)["hr@1"]
        assert found.difference == pytest.approx(1 / 3)
        assert found.p_value == pytest.approx(2 * 8 / 27, abs=0.01)
        assert (found.low, found.high) == (0, 1)

    def test_as_wide_as_a_normal_interval_of_paired_shares(self):
        # 40 of 400 users are hit by the first alone, 20 by the second alone: a mean of .05, and a variance of the
        # differences of .15 - .05**2 = .1475, so 1.96 * sqrt(.1475 / 400) to either side.
        ranks = [0] * 40 + [99] * 20 + [0] * 100 + [99] * 240
        other_ranks = [99] * 40 + [0] * 20 + [0] * 100 + [99] * 240
        found = paired_bootstrap(ranks, other_ranks, k=10, n_resamples=20_000)["hr@10"]
        assert found.difference == pytest.approx(0.05)
        assert found.low == pytest.approx(0.05 - 0.03764, abs=0.003)
        assert found.high == pytest.approx(0.05 + 0.03764, abs=0.003)
        # 0.05 / sqrt(.1475 / 400) = 2.60 standard errors.
        assert found.p_value == pytest.approx(0.0092, abs=0.003)

    def test_the_other_way_around_changes_the_sign_alone(self, ranks):
        other_ranks = np.roll(ranks, 7)
        found, mirrored = paired_bootstrap(ranks, other_ranks), paired_bootstrap(other_ranks, ranks)
        for name, difference in found.items():
            assert mirrored[name].difference == pytest.approx(-difference.difference)
            assert mirrored[name].low == pytest.approx(-difference.high, abs=0.005)
            assert mirrored[name].p_value == pytest.approx(difference.p_value, abs=0.03)

    def test_no_difference(self, ranks):
        for difference in paired_bootstrap(ranks, ranks).values():
            assert difference == (0, 0, 0, 1)

    def test_ranks_that_cancel_are_no_difference(self):
        # In the two users together the gains are those of ranks 2, 4 and 4, 2: their sum is rounding alone.
        found = paired_bootstrap([2, 4], [4, 2], k=10, n_resamples=20_000)["ndcg@10"]
        # A half of the resamples has both users, a quarter each only one of them: .75 on either side.
        assert found.p_value == 1

    def test_the_number_held_at_once_changes_nothing(self, monkeypatch, ranks):
        expected = paired_bootstrap(ranks, np.roll(ranks, 7), n_resamples=100)
        monkeypatch.setattr(bootstrap, "_DRAWN_AT_ONCE", 1000)
        assert paired_bootstrap(ranks, np.roll(ranks, 7), n_resamples=100) == expected

    def test_many_more_users_make_it_certain(self, ranks):
        better = np.maximum(ranks - 1, 0)
        found = paired_bootstrap(np.tile(better, 20), np.tile(ranks, 20), k=10)["ndcg@10"]
        assert found.p_value == pytest.approx(2 / 10_001)
        assert found.low > 0

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"n_resamples": 0}, "`n_resamples` must be at least 1, got 0"),
            ({"confidence": 0}, r"`confidence` must be in \(0, 1\), got 0"),
            ({"k": 0}, "`k` must be at least 1"),
            ({"other_ranks": [1]}, "`other_ranks` must be of the same 2 users as `ranks`, got 1"),
            ({"other_ranks": [1, -1]}, "whole numbers from 0"),
        ],
    )
    def test_errors(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            paired_bootstrap(**{"ranks": [1, 2], "other_ranks": [2, 1]} | arguments)
