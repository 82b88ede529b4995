from pathlib import Path

import evaluate
import numpy as np
import pytest

import hf_seqrec.metrics
from hf_seqrec.metrics import bootstrap_intervals, grouped_metrics, groups_by_length, groups_by_popularity
from hf_seqrec.metrics.grouped_ranking import GroupedRanking
from hf_seqrec.metrics.ranking import ranking_metrics

PATH = str(Path(hf_seqrec.metrics.__file__).parent / "grouped_ranking.py")


@pytest.fixture(params=["package", "path"])
def load(request):
    """Make the module from the package, or by evaluate.load on its file as a stranger would."""
    if request.param == "package":
        return GroupedRanking
    return lambda config_name=None: evaluate.load(PATH, config_name)


@pytest.fixture
def ranks():
    return np.random.default_rng(0).integers(0, 40, size=60)


def test_labels_by_hand(load):
    results = load().compute(predictions=[0, 2, 0], references=["new", "old", "old"], k=1, n_resamples=0)
    assert results == {
        "all": {"n_users": 3, **dict.fromkeys(["hr@1", "ndcg@1", "mrr@1"], pytest.approx(2 / 3))},
        "new": {"n_users": 1, "hr@1": 1.0, "ndcg@1": 1.0, "mrr@1": 1.0},
        "old": {"n_users": 2, "hr@1": 0.5, "ndcg@1": 0.5, "mrr@1": 0.5},
    }


def test_lengths_and_intervals_as_the_arithmetic(load, ranks):
    lengths = np.arange(1, 61)
    results = load("lengths").compute(predictions=ranks, references=lengths)
    everybody = results.pop("all")
    assert results == grouped_metrics(ranks, groups_by_length(lengths))
    for name, interval in bootstrap_intervals(ranks).items():
        assert everybody[f"{name}_interval"] == list(interval)
    assert ranking_metrics(ranks).items() <= everybody.items()


def test_popularity_as_the_arithmetic(load, ranks):
    counts, targets = np.arange(31), np.arange(60) % 30 + 1
    results = load("popularity").compute(predictions=ranks, references=targets, item_counts=counts)
    expected = grouped_metrics(ranks, groups_by_popularity(targets, counts))
    assert {name: results[name] for name in ("head", "mid", "tail")} == expected


@pytest.mark.parametrize(
    ("config", "references", "message"),
    [
        ("popularity", [1], "`item_counts` must be given"),
        ("labels", ["all"], "must not name a group 'all'"),
        ("users", [1], "`config_name` must be 'labels', 'lengths' or 'popularity', got 'users'"),
    ],
)
def test_errors(load, config, references, message):
    with pytest.raises(ValueError, match=message):
        load(config).compute(predictions=[0], references=references)
