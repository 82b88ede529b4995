from pathlib import Path

import evaluate
import numpy as np
import pytest

import hf_seqrec.metrics
from hf_seqrec.metrics.negatives import draw_negatives
from hf_seqrec.metrics.ranking import ranking_metrics, ranks_from_candidates
from hf_seqrec.metrics.sampled_ranking import SampledRanking

PATH = str(Path(hf_seqrec.metrics.__file__).parent / "sampled_ranking.py")


@pytest.fixture(params=["package", "path"])
def load(request):
    """Make the module from the package, or by evaluate.load on its file as a stranger would."""
    if request.param == "package":
        return SampledRanking
    return lambda config_name=None: evaluate.load(PATH, config_name)


@pytest.fixture
def many_users():
    generator = np.random.default_rng(0)
    return {
        "predictions": generator.normal(size=(64, 150)),
        "references": generator.integers(1, 150, size=64),
        "seen_items": generator.integers(0, 150, size=(64, 9)),
    }


def test_scores_by_hand(load):
    # Items 3 and 4 are all that can be drawn: one is above the target, 1 was seen.
    users = {"predictions": [[9.0, 0.9, 0.5, 0.1, 0.7]], "references": [2], "seen_items": [[1, 0]]}
    assert load().compute(**users, k=[1, 2], n_negatives=2) == {
        **{"hr@1_2_uniform": 0.0, "ndcg@1_2_uniform": 0.0, "mrr@1_2_uniform": 0.0},
        **{"hr@2_2_uniform": 1.0, "ndcg@2_2_uniform": pytest.approx(1 / np.log2(3)), "mrr@2_2_uniform": 0.5},
    }


def test_candidates_by_hand(load):
    # Ranks 1 and 0: the tie in the first row counts against the model.
    results = load("candidates").compute(
        predictions=[[0.5, 0.5, 0.1], [0.9, 0.2, 0.1]], k=1, distribution="popularity"
    )
    assert results == {"hr@1_2_popularity": 0.5, "ndcg@1_2_popularity": 0.5, "mrr@1_2_popularity": 0.5}


@pytest.mark.parametrize(
    ("arguments", "protocol"),
    [
        ({}, "100_uniform"),
        ({"n_negatives": 20, "seed": 3}, "20_uniform"),
        ({"n_negatives": 20, "distribution": "popularity", "item_counts": np.arange(150)}, "20_popularity"),
        (
            {"n_negatives": 20, "distribution": "popularity", "item_counts": np.arange(150), "alpha": 0.75},
            "20_popularity^0.75",
        ),
    ],
)
def test_the_same_numbers_as_the_arithmetic(load, many_users, arguments, protocol):
    results = load().compute(**many_users, **arguments)
    scores, targets, seen = many_users.values()
    negatives = draw_negatives(targets, seen, vocab_size=150, **arguments)
    candidates = np.array([[scores[user, row] for row in (targets[user], *negatives[user])] for user in range(64)])
    expected = ranking_metrics(ranks_from_candidates(candidates))
    assert results == {f"{name}_{protocol}": value for name, value in expected.items()}
    named = {name: arguments[name] for name in ("distribution", "alpha") if name in arguments}
    assert load("candidates").compute(predictions=candidates, **named) == results


def test_batches_are_put_together(load, many_users):
    whole, batches = load(), load()
    for start in range(0, 64, 24):
        batches.add_batch(**{name: column[start : start + 24] for name, column in many_users.items()})
    assert batches.compute(seed=5) == whole.compute(**many_users, seed=5)


def test_another_seed_draws_others(load, many_users):
    results = [load().compute(**many_users, seed=seed)["mrr@20_100_uniform"] for seed in (0, 0, 1)]
    assert results[0] == results[1] != results[2]


def test_a_constant_scorer_does_not_look_good(load, many_users):
    users = many_users | {"predictions": np.ones((64, 150))}
    assert set(load().compute(**users).values()) == {0.0}


def test_nan_raises(load):
    with pytest.raises(ValueError, match="NaN, found in row 1"):
        load("candidates").compute(predictions=[[0.5, 0.1], [0.5, np.nan]])


def test_too_many_negatives_raise(load):
    users = {"predictions": [[9.0, 0.9, 0.5, 0.1]], "references": [2], "seen_items": [[1]]}
    with pytest.raises(ValueError, match="at most the 1 items left to draw for user 0, got 100"):
        load().compute(**users)


def test_cut_off_beyond_the_candidates_raises(load, many_users):
    with pytest.raises(ValueError, match="`k` must be at most the 6 items that are ranked, got 10"):
        load().compute(**many_users, n_negatives=5, k=10)


def test_an_unknown_sampling_raises(load):
    with pytest.raises(ValueError, match="`distribution` must be 'uniform' or 'popularity', got 'hard'"):
        load("candidates").compute(predictions=[[0.5, 0.1]], distribution="hard")


def test_an_unknown_configuration_raises(load):
    with pytest.raises(ValueError, match="`config_name` must be 'scores' or 'candidates', got 'ranks'"):
        load("ranks")
