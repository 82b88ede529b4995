import ast
from pathlib import Path

import numpy as np
import pytest

from hf_seqrec import evaluate_checkpoint, global_time_split, leave_one_out, load_checkpoint
from hf_seqrec import evaluation as package
from hf_seqrec.data.sequences import Sequences
from hf_seqrec.evaluation.evaluate_checkpoint import EvaluationArguments
from hf_seqrec.evaluation.rank_users import rank_users
from hf_seqrec.evaluation.results import check_results
from hf_seqrec.metrics import ranking_metrics
from tests.helpers import small_model, walks


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
