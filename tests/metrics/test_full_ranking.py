import json
import math
import os
import subprocess
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest

import hf_seqrec.metrics
from hf_seqrec.metrics.full_ranking import FullRanking
from hf_seqrec.metrics.ranking import ranking_metrics, ranks_from_scores

PATH = str(Path(hf_seqrec.metrics.__file__).parent / "full_ranking.py")

# The target is second of four with everything competing, first once the history is excluded.
USERS = {"predictions": [[9.0, 0.9, 0.5, 0.1, 0.2]], "references": [2], "seen_items": [[1, 0]]}


@pytest.fixture(params=["package", "path"])
def load(request):
    """Make the module from the package, or by evaluate.load on its file as a stranger would."""
    if request.param == "package":
        return FullRanking
    return lambda config_name=None: evaluate.load(PATH, config_name)


@pytest.fixture
def many_users():
    generator = np.random.default_rng(0)
    return {
        # Few different values, so that there are ties.
        "predictions": generator.integers(0, 30, size=(64, 50)) / 7,
        "references": generator.integers(1, 50, size=64),
        "seen_items": generator.integers(0, 50, size=(64, 9)),
    }


def test_scores_by_hand(load):
    assert load().compute(**USERS, k=[1, 2]) == pytest.approx(
        {
            **{"hr@1": 1.0, "ndcg@1": 1.0, "mrr@1": 1.0, "hr@2": 1.0, "ndcg@2": 1.0, "mrr@2": 1.0},
            **{"hr@1_with_seen": 0.0, "ndcg@1_with_seen": 0.0, "mrr@1_with_seen": 0.0},
            **{"hr@2_with_seen": 1.0, "ndcg@2_with_seen": 1 / math.log2(3), "mrr@2_with_seen": 1 / 2},
        }
    )


def test_ranks_by_hand(load):
    results = load("ranks").compute(predictions=[0, 2], k=3)
    assert results == {"hr@3": 1.0, "ndcg@3": 0.75, "mrr@3": pytest.approx(2 / 3)}


def test_the_same_numbers_as_the_arithmetic(load, many_users):
    results = load("scores").compute(**many_users)
    excluded = ranks_from_scores(*many_users.values())
    with_seen = ranks_from_scores(many_users["predictions"], many_users["references"])
    assert (excluded != with_seen).any()
    for name, value in ranking_metrics(excluded).items():
        assert results[name] == value
    for name, value in ranking_metrics(with_seen).items():
        assert results[f"{name}_with_seen"] == value
    assert len(results) == 2 * 4 * 3
    assert load("ranks").compute(predictions=excluded) == ranking_metrics(excluded)


def test_batches_are_put_together(load, many_users):
    whole, batches, ranks = load(), load(), load("ranks")
    for start in range(0, 64, 24):
        batch = {name: column[start : start + 24] for name, column in many_users.items()}
        batches.add_batch(**batch)
        ranks.add_batch(predictions=ranks_from_scores(*batch.values()))
    results = batches.compute()
    assert results == whole.compute(**many_users)
    assert ranks.compute().items() <= results.items()


def test_histories_may_be_ragged_or_empty(load):
    users = {"predictions": [[0.0, 0.9, 0.5]] * 2, "references": [2, 2], "seen_items": [[1], []]}
    assert load().compute(**users, k=1)["hr@1"] == 0.5


def test_close_scores_do_not_tie(load):
    """float32 would round the two scores to one, and the tie would count against the model."""
    users = {"predictions": [[0.0, 1.0, 1.0 + 1e-12]], "references": [2], "seen_items": [[]]}
    assert load().compute(**users, k=1)["hr@1"] == 1.0


def test_a_constant_scorer_does_not_look_good(load):
    users = {"predictions": np.ones((8, 30)), "references": np.arange(1, 9), "seen_items": np.zeros((8, 1), int)}
    assert set(load().compute(**users).values()) == {0.0}


def test_nan_raises(load):
    with pytest.raises(ValueError, match="NaN, found in row 0"):
        load().compute(predictions=[[0.0, math.nan, 0.5]], references=[2], seen_items=[[]])


def test_ranks_that_are_scores_raise(load):
    with pytest.raises(ValueError, match=r"whole numbers from 0, got 0\.5 at row 1"):
        load("ranks").compute(predictions=[1, 0.5])


def test_cut_off_below_one_raises(load):
    with pytest.raises(ValueError, match="`k` must be at least 1, got 0"):
        load("ranks").compute(predictions=[1], k=0)


def test_cut_off_beyond_the_catalog_raises(load):
    with pytest.raises(ValueError, match="`k` must be at most the 4 items that are ranked, got 5"):
        load().compute(**USERS, k=[1, 5])


def test_a_missing_history_is_named(load):
    with pytest.raises(ValueError, match="seen_items"):
        load().compute(predictions=[[0.0, 0.1, 0.5]], references=[2])


def test_an_unknown_configuration_raises(load):
    with pytest.raises(ValueError, match="`config_name` must be 'scores' or 'ranks', got 'rank'"):
        load("rank")


def test_both_modules_load_offline_where_the_package_is_absent(tmp_path):
    sampled = str(Path(PATH).with_name("sampled_ranking.py"))
    calls = [(PATH, {**USERS, "k": 1}), (sampled, {**USERS, "k": 1, "n_negatives": 2})]
    script = """
import json, sys
sys.modules["hf_seqrec"] = None
import evaluate
print(json.dumps([evaluate.load(path).compute(**arguments) for path, arguments in json.loads(sys.argv[1])]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script, json.dumps(calls)],
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [evaluate.load(path).compute(**arguments) for path, arguments in calls]
