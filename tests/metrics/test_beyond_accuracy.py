from pathlib import Path

import evaluate
import pytest

import hf_seqrec.metrics
from hf_seqrec.metrics.beyond_accuracy import BeyondAccuracy

PATH = str(Path(hf_seqrec.metrics.__file__).parent / "beyond_accuracy.py")


@pytest.fixture(params=["package", "path"])
def metric(request):
    """Make the module from the package, or by evaluate.load on its file as a stranger would."""
    return BeyondAccuracy() if request.param == "package" else evaluate.load(PATH)


def test_by_hand(metric):
    results = metric.compute(predictions=[[1, 2], [1, 3]], item_counts=[0, 4, 2, 2, 0], k=[1, 2])
    assert results == {"coverage@1": 0.25, "novelty@1": 1.0, "coverage@2": 0.75, "novelty@2": 1.5}


def test_whole_lists_by_default(metric):
    metric.add_batch(predictions=[[1, 2]])
    metric.add_batch(predictions=[[1, 3]])
    assert metric.compute(item_counts=[0, 4, 2, 2, 0]) == {"coverage@2": 0.75, "novelty@2": 1.5}


def test_lists_of_several_lengths_raise(metric):
    with pytest.raises(ValueError, match="lists of one length, got 1 to 2 items"):
        metric.compute(predictions=[[1, 2], [1]], item_counts=[0, 1, 1])
