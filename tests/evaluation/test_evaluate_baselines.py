import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hf_seqrec.baselines import BASELINES, fit_baseline
from hf_seqrec.data.leave_one_out import leave_one_out
from hf_seqrec.data.sequences import load_sequences
from hf_seqrec.data.streaming import StreamedHistories, streamed_leave_one_out
from hf_seqrec.evaluation import evaluate_baselines as module
from hf_seqrec.evaluation.evaluate_baselines import (
    RankedBaseline,
    baseline_names,
    baseline_results,
    compare_with_best,
    evaluate_baselines,
    quick_baselines,
)
from hf_seqrec.evaluation.protocol import EvaluationProtocol
from hf_seqrec.evaluation.results import check_results
from tests.helpers import sequences_of, walks

SAMPLED = EvaluationProtocol("sampled", 2, "popularity", seed=3)


@pytest.fixture(scope="module")
def splits():
    """Walks over more items than anybody has seen."""
    return leave_one_out(walks(n_items=30))


@pytest.fixture
def small_ease(monkeypatch):
    """EASE takes catalogs of at most three items."""

    def fit(name, histories):
        return fit_baseline(name, histories, **({"max_items": 3} if name == "ease" else {}))

    monkeypatch.setattr(module, "fit_baseline", fit)


def test_by_hand():
    # Training: 1 2 | 1 3 | 1 2, so counts are 1: 3, 2: 2, 3: 1, 4: 0, 5: 0. Ties count against the target.
    splits = leave_one_out(sequences_of([1, 2, 3, 2], [1, 3, 4, 1], [1, 2, 5, 4]))
    found = evaluate_baselines(["popularity"], splits, k=[1, 2])
    assert list(found) == ["popularity"]
    metrics = found["popularity"]
    # Validation targets 3, 4, 5. User 0 has had 1 and 2: rank 0. Ahead of 4: 2 and the tie 5; of 5: 3 and the tie 4.
    assert metrics["eval_hr@1"] == metrics["eval_hr@2"] == pytest.approx(1 / 3)
    assert metrics["eval_hr@2_with_seen"] == 0
    # Test targets 2, 1, 4: ranks 0, 0, 1, and 1, 0, 4 with the history.
    assert metrics["test_hr@1"] == pytest.approx(2 / 3)
    assert metrics["test_ndcg@2"] == pytest.approx((2 + 1 / np.log2(3)) / 3)
    assert metrics["test_mrr@2_with_seen"] == pytest.approx((1 / 2 + 1) / 3)
    # What the test users have not had: 4 and 5; 2 and 5; 3 and 4.
    assert metrics["test_coverage@2"] == 4 / 5
    assert {name.partition("_")[0] for name in metrics} == {"eval", "test"}


@pytest.mark.parametrize("protocol", [EvaluationProtocol(), SAMPLED], ids=str)
def test_popularity_in_closed_form(splits, protocol):
    found = evaluate_baselines("popularity", splits, protocol, parts=["test"])["popularity"]
    expected = protocol.popularity(splits.train, splits.test)
    assert {name: found[f"test_{name}"] for name in expected} == pytest.approx(expected)
    assert not [name for name in found if name.startswith("eval_")]


def test_all_of_them_are_fitted_on_the_training_view_alone(splits, monkeypatch):
    fitted = []
    monkeypatch.setattr(
        module, "fit_baseline", lambda name, histories: fitted.append(histories) or fit_baseline(name, histories)
    )
    found = evaluate_baselines("all", splits)
    assert list(found) == list(BASELINES)
    assert all(histories is splits.train for histories in fitted)
    # Nine of ten steps go to the next item.
    assert found["rules"]["test_hr@10_with_seen"] > 0.9 > found["popularity"]["test_hr@10_with_seen"]


def test_a_catalog_that_is_too_large_for_a_baseline(splits, small_ease, caplog):
    assert list(evaluate_baselines("all", splits, parts=["test"])) == [name for name in BASELINES if name != "ease"]
    assert "The baseline ease is left out: EASE holds a weight for each pair of items: the 30 items" in caplog.text
    with pytest.raises(ValueError, match="the 30 items of this catalog"):
        evaluate_baselines(["popularity", "ease"], splits)


def test_names():
    assert baseline_names("all") == baseline_names(["rules", "all"]) == list(BASELINES)
    assert baseline_names(["rules", "ease", "rules"]) == ["rules", "ease"]
    for names, found in ((["rules", "knn"], "knn"), ([], "none")):
        with pytest.raises(ValueError, match=f"`baselines` must be `all` or among popularity, .*ease, got {found}"):
            baseline_names(names)


@pytest.mark.parametrize("better", [True, False])
def test_a_comparison_by_hand(better):
    # The model ranks everybody first or third, one baseline everybody second, the other nobody among the first ten.
    ranks = np.full(50, 0 if better else 2)
    baselines = {
        "ease": RankedBaseline({}, {"test": [np.full(50, 30)]}),
        "rules": RankedBaseline({}, {"test": [np.full(50, 1)]}),
    }
    difference = (1 if better else 1 / 2) - 1 / np.log2(3)
    assert compare_with_best(ranks, baselines, EvaluationProtocol()) == {
        "metric": "test_ndcg@10",
        "baseline": "rules",
        "difference": pytest.approx(difference),
        "interval": pytest.approx([difference, difference]),
        # No resample of 10,000 is on the other side.
        "p_value": 2 / 10_001,
        "n_users": 50,
    }
    assert compare_with_best(ranks, baselines, SAMPLED)["metric"] == "test_ndcg@10_2_popularity"


def test_results_without_a_model(splits):
    sequences = splits.test.sequences
    found = baseline_results("rules", sequences, splits, SAMPLED, ["test"], [5], "org/walks")
    check_results(found, "they")
    assert found["baselines"] == evaluate_baselines("rules", splits, SAMPLED, ["test"], [5])
    assert found["model_type"] is found["parameters"] is None
    assert found["protocol"] == f"{splits.protocol}, {SAMPLED.description}"
    assert found["statistics"]["n_users"] == 40


class TestQuick:
    """What a run is shown beside."""

    def test_popularity_and_rules(self, splits):
        found = quick_baselines(splits, EvaluationProtocol())
        assert found == evaluate_baselines(["popularity", "rules"], splits)

    @pytest.mark.parametrize("limit", ["_QUICK_EVENTS", "_QUICK_SCORES"])
    @pytest.mark.parametrize("protocol", [EvaluationProtocol(), SAMPLED], ids=str)
    def test_rules_would_take_too_long(self, splits, monkeypatch, caplog, limit, protocol):
        expected = evaluate_baselines("popularity", splits, protocol)["popularity"]
        monkeypatch.setattr(module, limit, 10)
        found = quick_baselines(splits, protocol)
        assert list(found) == ["popularity"]
        assert "The baseline rules is left out" in caplog.text
        assert len(found["popularity"]) == 2 * 12 * len(protocol.rankings)
        assert found["popularity"] == pytest.approx({name: expected[name] for name in found["popularity"]})

    def test_streamed_as_in_memory(self, tmp_path):
        sequences = walks()
        bounds = list(zip(sequences.offsets[:-1], sequences.offsets[1:], strict=True))
        histories = [sequences.item_rows[start:stop] for start, stop in bounds]
        times = [np.arange(stop - start) for start, stop in bounds]
        table = pa.table({"user_id": sequences.user_ids, "item_ids": histories, "timestamps": times})
        (tmp_path / "sequences").mkdir()
        pq.write_table(table, tmp_path / "sequences/part-0.parquet", row_group_size=7)
        sequences.catalog.save(tmp_path)
        (tmp_path / "statistics.json").write_text(json.dumps({"n_users": 40}))
        # Windows are shorter than the histories.
        streamed = streamed_leave_one_out(StreamedHistories(tmp_path, batch_size=4, max_length=3), 40)
        found = quick_baselines(streamed, EvaluationProtocol())
        expected = quick_baselines(leave_one_out(load_sequences(tmp_path)), EvaluationProtocol())
        assert list(found) == ["popularity", "rules"]
        for name in found:
            assert found[name] == pytest.approx(expected[name])
