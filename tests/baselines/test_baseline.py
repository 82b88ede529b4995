import pytest
import torch

from hf_seqrec.baselines import BASELINES, baseline_class, fit_baseline
from hf_seqrec.baselines.popularity import MostPopular
from hf_seqrec.baselines.sequential_rules import SequentialRules
from hf_seqrec.data.collators import RankingCollator
from hf_seqrec.data.leave_one_out import leave_one_out
from hf_seqrec.evaluation.protocol import EvaluationProtocol
from hf_seqrec.models.item_scores import candidate_ranks, target_ranks
from tests.helpers import sequences_of, walks


@pytest.fixture(scope="module")
def splits():
    return leave_one_out(walks())


@pytest.fixture(scope="module")
def batch(splits):
    return RankingCollator(50)(splits.test.__getitems__(range(len(splits.test))))


@pytest.mark.parametrize("name", BASELINES)
class TestEveryBaseline:
    def test_scores(self, name, splits, batch):
        scores = fit_baseline(name, splits.train).scores(batch)
        assert scores.shape == (len(splits.test), 13)
        assert torch.isneginf(scores[:, 0]).all()
        assert torch.isfinite(scores[:, 1:]).all()

    def test_the_side_of_the_padding_makes_no_difference(self, name, splits):
        baseline = fit_baseline(name, splits.train)
        right, left = torch.tensor([[3, 4, 5, 0, 0]]), torch.tensor([[0, 0, 3, 4, 5]])
        assert torch.equal(baseline.scores({"input_ids": right}), baseline.scores({"input_ids": left}))

    def test_nothing_depends_on_the_other_users_of_a_batch(self, name, splits, batch):
        baseline = fit_baseline(name, splits.train)
        alone = torch.cat([baseline.scores({"input_ids": ids[None]}) for ids in batch["input_ids"]])
        torch.testing.assert_close(alone, baseline.scores(batch))

    def test_ranks_are_those_of_a_model_with_the_same_scores(self, name, splits, batch):
        baseline = fit_baseline(name, splits.train)
        scores = baseline.scores(batch)
        # With the scores as states and the identity as items, a model scores the same.
        finite, items = scores.nan_to_num(neginf=0).double(), torch.eye(13, dtype=torch.float64)
        expected = target_ranks(finite, items, batch["targets"], batch["seen_items"])
        found = EvaluationProtocol().ranks(baseline, scores, batch)
        assert [ranks.tolist() for ranks in found] == [ranks.tolist() for ranks in expected]

    def test_ranks_among_negatives_too(self, name, splits, batch):
        baseline = fit_baseline(name, splits.train)
        scores = baseline.scores(batch)
        negatives = {"eval_negatives": (batch["targets"][:, None] + torch.arange(5)) % 12 + 1}
        (found,) = EvaluationProtocol("sampled", 5).ranks(baseline, scores, batch | negatives)
        finite, items = scores.nan_to_num(neginf=0).double(), torch.eye(13, dtype=torch.float64)
        assert torch.equal(found, candidate_ranks(finite, items, batch["targets"], negatives["eval_negatives"]))

    def test_only_the_training_view_is_learned_from(self, name, splits):
        with pytest.raises(ValueError, match="must be the training view of a split"):
            fit_baseline(name, splits.validation)


def test_rules_follow_a_walk_that_popularity_cannot(splits, batch):
    # Nine of ten steps go to the next item.
    hits = {}
    for name in ("popularity", "rules"):
        baseline = fit_baseline(name, splits.train)
        _, ranks = baseline.rank_targets(baseline.scores(batch), batch["targets"], batch["seen_items"])
        hits[name] = (ranks == 0).double().mean()
    assert hits["rules"] > 0.8 > 0.3 > hits["popularity"]


def test_top_items():
    baseline = MostPopular().fit(leave_one_out(sequences_of([1, 1, 1, 2, 2, 3, 1, 1])).train)
    scores = baseline.scores({"input_ids": torch.tensor([[3], [1]])})
    rows, best = baseline.top_items(scores, 2)
    assert rows.tolist() == [[1, 2]] * 2
    assert best.tolist() == [[3, 2]] * 2
    rows, best = baseline.top_items(scores, 3, excluded_rows=torch.tensor([[3, 0], [1, 2]]))
    assert rows[0, :2].tolist() == [1, 2]
    assert rows[1, 0] == 3
    assert torch.isneginf(best).tolist() == [[False, False, True], [False, True, True]]


def test_a_batch_of_scores_stays_within_memory():
    baseline = MostPopular()
    baseline.vocab_size = 1_000_001
    assert baseline.users_at_once == 33
    baseline.vocab_size = 2**26
    assert baseline.users_at_once == 1


def test_the_registry():
    assert isinstance(fit_baseline("rules", leave_one_out(walks()).train, window=1), SequentialRules)
    assert baseline_class("popularity") is MostPopular
    with pytest.raises(ValueError, match=r"`name` must be one of popularity, rules, .* got 'svd'"):
        fit_baseline("svd", None)
    with pytest.raises(ValueError, match=r"`windows` is no parameter of the baseline 'rules'; it has window, "):
        fit_baseline("rules", None, windows=1)
    with pytest.raises(ValueError, match=r"`decay` is no parameter of the baseline 'last_item'; it has n_neighbors"):
        fit_baseline("last_item", None, decay=1)


def test_scores_before_fit():
    with pytest.raises(ValueError, match="SequentialRules must be fitted before it scores"):
        SequentialRules().scores({"input_ids": torch.tensor([[1]])})


@pytest.mark.parametrize(
    ("input_ids", "message"),
    [
        (torch.tensor([[1, 13]]), r"`input_ids` must be rows in 0..12, .* got 1 to 13"),
        (torch.tensor([[-1, 2]]), r"got -1 to 2"),
        (torch.tensor([1, 2]), r"`input_ids` must have the shape \(b, l\), got \(2,\)"),
    ],
)
def test_wrong_histories(splits, input_ids, message):
    with pytest.raises(ValueError, match=message):
        MostPopular().fit(splits.train).scores({"input_ids": input_ids})


def test_no_engine_is_loaded_before_it_is_needed():
    import subprocess
    import sys

    script = "import sys, hf_seqrec.baselines; print('scipy' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
