import numpy as np
import pytest
import torch

from hf_seqrec.baselines.popularity import popularity_baseline
from hf_seqrec.data.leave_one_out import leave_one_out
from hf_seqrec.evaluation.evaluate_checkpoint import EvaluationArguments
from hf_seqrec.evaluation.protocol import EvaluationProtocol
from hf_seqrec.metrics.negatives import draw_negatives
from hf_seqrec.metrics.ranking import ranking_metrics, ranks_from_candidates
from hf_seqrec.training.trainer import SeqRecTrainer
from hf_seqrec.training.training_args import SeqRecTrainingArguments
from tests.helpers import sequences_of, small_model

N_ITEMS = 40


@pytest.fixture(scope="module")
def sequences():
    generator = np.random.default_rng(0)
    histories = [generator.integers(1, N_ITEMS + 1, size=generator.integers(4, 16)) for _ in range(30)]
    return sequences_of(*histories, n_items=N_ITEMS)


def trainer_for(folder, splits, **arguments):
    return SeqRecTrainer(
        small_model(N_ITEMS + 1),
        SeqRecTrainingArguments(
            output_dir=str(folder), max_length=5, disable_tqdm=True, report_to="none", use_cpu=True, **arguments
        ),
        train_dataset=splits.train,
        eval_dataset=splits.validation,
    )


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_the_trainer_ranks_among_the_negatives_of_the_metrics(tmp_path, sequences, distribution):
    splits = leave_one_out(sequences)
    sampled = {"eval_protocol": "sampled", "eval_negatives": 7, "eval_negatives_distribution": distribution}
    trainer = trainer_for(tmp_path, splits, **sampled, per_device_eval_batch_size=8)
    metrics = trainer.evaluate(splits.test, metric_key_prefix="test")

    test = splits.test
    histories = [test.history(user).astype(np.int64) for user in range(len(test))]
    scores = np.stack([trainer.model(torch.tensor(history[-5:])[None]).logits[0].detach() for history in histories])
    negatives = draw_negatives(test.targets, histories, N_ITEMS + 1, 7, distribution, splits.train.item_counts())
    ranks = ranks_from_candidates(np.take_along_axis(scores, np.column_stack([test.targets, negatives]), axis=1))
    for name, value in ranking_metrics(ranks).items():
        assert metrics[f"test_{name}_7_{distribution}"] == pytest.approx(value)
    assert "test_ndcg@10" not in metrics
    assert trainer.args.metric_for_best_model == f"ndcg@10_7_{distribution}"


def test_popularity_under_each_protocol(sequences):
    splits = leave_one_out(sequences)
    full = EvaluationProtocol()
    assert full.popularity(splits.train, splits.test) == popularity_baseline(splits.train, splits.test)
    sampled = EvaluationProtocol("sampled", 7)
    metrics = sampled.popularity(splits.train, splits.test, users_at_once=8)
    assert metrics == sampled.popularity(splits.train, splits.test)
    counts, test = splits.train.item_counts(), splits.test
    negatives = draw_negatives(test.targets, [test.history(user) for user in range(30)], N_ITEMS + 1, 7)
    at_least_as_popular = (counts[negatives] >= counts[test.targets][:, None]).sum(axis=1)
    assert metrics["hr@5_7_uniform"] == pytest.approx((at_least_as_popular < 5).mean())


def test_names_say_what_was_measured():
    assert list(EvaluationProtocol().rankings) == ["", "_with_seen"]
    sampled = EvaluationProtocol("sampled", 1000, "popularity")
    assert sampled.rankings == {"_1000_popularity": "among 1,000 popularity-weighted negatives (seed 0)"}
    assert "not comparable with a full ranking" in sampled.description


def test_more_negatives_than_unseen_items_stop_before_training(tmp_path, sequences):
    with pytest.raises(
        ValueError, match=r"`eval_negatives` must be at most the .* got 39, too many for 30 of 30 users"
    ):
        trainer_for(tmp_path, leave_one_out(sequences), eval_protocol="sampled", eval_negatives=39)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "all"}, "`eval_protocol` must be 'full' or 'sampled', got 'all'"),
        ({"distribution": "zipf"}, "`eval_negatives_distribution` must be 'uniform' or 'popularity', got 'zipf'"),
        ({"n_negatives": 0}, "`eval_negatives` must be at least 1, got 0"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        EvaluationProtocol(**arguments)


def test_a_run_and_an_evaluation_have_the_same_options():
    given = {"eval_protocol": "sampled", "eval_negatives": 7, "eval_negatives_distribution": "popularity"}
    expected = EvaluationProtocol("sampled", 7, "popularity", seed=3)
    assert SeqRecTrainingArguments(use_cpu=True, **given, eval_negatives_seed=3).protocol == expected
    assert EvaluationArguments(**given, eval_negatives_seed=3).protocol == expected
