import numpy as np
import pytest

from hf_seqrec.metrics.bootstrap import bootstrap_intervals
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
