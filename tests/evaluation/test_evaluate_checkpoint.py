import ast
from pathlib import Path

import numpy as np
import pytest

from hf_seqrec import evaluate_checkpoint, global_time_split, leave_one_out, load_checkpoint
from hf_seqrec import evaluation as package
from hf_seqrec.baselines.popularity import popularity_ranks
from hf_seqrec.data.catalog import Catalog
from hf_seqrec.data.sequences import Sequences
from hf_seqrec.evaluation.evaluate_baselines import evaluate_baselines
from hf_seqrec.evaluation.evaluate_checkpoint import EvaluationArguments
from hf_seqrec.evaluation.rank_users import rank_users
from hf_seqrec.evaluation.results import check_results
from hf_seqrec.metrics import ranking_metrics
from tests.helpers import sequences_of, small_model, walks


@pytest.fixture
def checkpoint(tmp_path):
    small_model(13).save_pretrained(tmp_path)
    walks().catalog.save(tmp_path)
    return load_checkpoint(tmp_path)


def test_a_checkpoint_and_histories_are_enough(checkpoint):
    results = check_results(evaluate_checkpoint(*checkpoint, walks()), "they")
    splits = leave_one_out(walks())
    for prefix, view in (("eval", splits.validation), ("test", splits.test)):
        expected = ranking_metrics(rank_users(checkpoint.model, view).ranks[0])
        assert (
            expected.items()
            <= {name.removeprefix(f"{prefix}_"): value for name, value in results["metrics"].items()}.items()
        )
    assert results["protocol"].startswith(splits.protocol)
    assert results["dataset"] == ""
    assert results["statistics"] == {"n_users": 40, "n_items": 12, "n_interactions": walks().n_interactions}


def test_other_splits_arguments_and_a_name(checkpoint):
    found = walks()
    # Event i of every user is at second i.
    times = np.concatenate([np.arange(length) for length in np.diff(found.offsets)])
    timed = Sequences(found.item_rows, found.offsets, found.catalog, found.user_ids, timestamps=times)
    splits = global_time_split(timed, "6", "9")
    arguments = EvaluationArguments(parts=["test"], device="cpu")
    results = evaluate_checkpoint(*checkpoint, timed, splits, arguments, "org/walks")
    assert results["split_counts"]["users evaluated"] == len(splits.test) < 40
    assert results["dataset"] == "org/walks"
    assert results["protocol"].startswith("global time cut")
    assert not [name for name in results["metrics"] if name.startswith("eval_")]


def test_evaluation_imports_neither_checkpoints_nor_ingest():
    for path in Path(package.__file__).parent.glob("*.py"):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        rooms = {
            (node.module or "").split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and node.level
        }
        assert not rooms & {"checkpoints", "ingest", "training", "cli"}, path.name


class TestBaselines:
    """Baselines beside the model."""

    def test_the_best_of_them_is_compared_with_the_model(self, checkpoint):
        arguments = EvaluationArguments(baselines=["popularity", "rules"], device="cpu")
        results = check_results(evaluate_checkpoint(*checkpoint, walks(), arguments=arguments), "they")
        assert results["baselines"] == evaluate_baselines(["popularity", "rules"], leave_one_out(walks()))
        # Named as the model's, which also has losses.
        names = results["metrics"].keys() - {"eval_loss", "test_loss"}
        assert results["baselines"]["rules"].keys() == names
        comparison = results["comparison"]
        assert comparison["baseline"] == "rules"
        difference = results["metrics"]["test_ndcg@10"] - results["baselines"]["rules"]["test_ndcg@10"]
        assert comparison["difference"] == pytest.approx(difference)
        assert comparison["interval"][0] <= difference <= comparison["interval"][1] < 0
        assert comparison["n_users"] == 40

    def test_without_them_or_without_a_test(self, checkpoint):
        results = evaluate_checkpoint(*checkpoint, walks())
        assert not {"baselines", "comparison"} & results.keys()
        arguments = EvaluationArguments(baselines=["popularity"], parts=["validation"], device="cpu")
        results = evaluate_checkpoint(*checkpoint, walks(), arguments=arguments)
        assert results["baselines"]["popularity"].keys() <= results["metrics"].keys()
        assert "comparison" not in results

    def test_another_catalog(self, caplog):
        # The model knows 1 to 4. It is measured on the first and the last user.
        dataset = sequences_of([1, 2, 3, 4], [1, 2, 3, 5], [5, 6, 5, 4], [1, 5, 3, 2], n_items=6)
        catalog = Catalog.from_items([f"id-{row}" for row in range(1, 5)])
        ranks = popularity_ranks(leave_one_out(dataset).train, leave_one_out(dataset).test)[0]
        for how, users in (("exclude", [0, 3]), ("miss", [0, 1, 2, 3])):
            arguments = EvaluationArguments(
                baselines=["popularity"], parts=["test"], unknown_items=how, device="cpu", n_resamples=10
            )
            results = evaluate_checkpoint(small_model(5), catalog, dataset, arguments=arguments)
            expected = ranking_metrics(ranks[users])
            found = results["baselines"]["popularity"]
            assert {name: found[f"test_{name}"] for name in expected} == pytest.approx(expected)
            assert "comparison" not in results
        assert "it ranks the 4 items of its own catalog, and the baselines rank the 6 of the dataset" in caplog.text

    def test_a_name_that_is_none(self):
        with pytest.raises(ValueError, match=r"`baselines` must be `all` or among .*, got knn"):
            EvaluationArguments(baselines=["knn"])
