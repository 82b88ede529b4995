import json
import math

import evaluate
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback, TrainingArguments, set_seed

import hf_seqrec.metrics.full_ranking as full_ranking_module
from hf_seqrec import BERT4Rec, BERT4RecConfig, Mamba4Rec, Mamba4RecConfig, MoEMaTrRec, MoEMaTrRecConfig
from hf_seqrec.data.leave_one_out import leave_one_out
from hf_seqrec.data.streaming import StreamedHistories, streamed_leave_one_out
from hf_seqrec.training.run_folder import checkpoint_to_resume
from hf_seqrec.training.trainer import SeqRecTrainer
from hf_seqrec.training.training_args import SeqRecTrainingArguments
from tests.helpers import sequences_of, small_model, walks


def trainer_for(folder, sequences, model=None, callbacks=(), **arguments):
    arguments = {
        "num_train_epochs": 3,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "max_length": 10,
        "disable_tqdm": True,
        "report_to": "none",
        "use_cpu": True,
    } | arguments
    splits = leave_one_out(sequences)
    return SeqRecTrainer(
        model or small_model(sequences.catalog.vocab_size),
        SeqRecTrainingArguments(output_dir=str(folder), **arguments),
        train_dataset=splits.train,
        eval_dataset=splits.validation,
        catalog=sequences.catalog,
        callbacks=list(callbacks),
    )


def test_learns_and_keeps_the_best_checkpoint(tmp_path):
    trainer = trainer_for(tmp_path, walks(), num_train_epochs=8)
    before = trainer.evaluate()["eval_ndcg@10"]
    trainer.train()
    history = [entry["eval_ndcg@10"] for entry in trainer.state.log_history if "eval_ndcg@10" in entry]
    assert trainer.state.best_metric == max(history)
    assert trainer.evaluate()["eval_ndcg@10"] == pytest.approx(max(history))
    assert max(history) > before + 0.2


def test_trains_on_what_the_model_asks_for(tmp_path):
    sequences = walks(n_users=100)
    set_seed(0)
    config = BERT4RecConfig(
        vocab_size=BERT4RecConfig.vocab_size_for(12),
        hidden_size=32,
        num_hidden_layers=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        # Learns what comes next sooner than what stood between.
        mask_last_probability=0.5,
    )
    quiet = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
    trainer = trainer_for(tmp_path, sequences, BERT4Rec(config), num_train_epochs=30, learning_rate=3e-3, **quiet)
    before = trainer.evaluate()["eval_ndcg@10_with_seen"]
    trainer.train()
    assert trainer.evaluate()["eval_ndcg@10_with_seen"] > before + 0.2


def test_trains_the_authors_arithmetic_at_the_last_item(tmp_path):
    sequences = walks(n_users=100)
    set_seed(0)
    config = MoEMaTrRecConfig(
        vocab_size=13, hidden_size=16, state_size=4, causal=False, max_position_embeddings=10, hidden_dropout_prob=0.0
    )
    quiet = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
    trainer = trainer_for(tmp_path, sequences, MoEMaTrRec(config), num_train_epochs=20, **quiet)
    before = trainer.evaluate()["eval_ndcg@10_with_seen"]
    trainer.train()
    assert trainer.evaluate()["eval_ndcg@10_with_seen"] > before + 0.2


def test_same_numbers_by_hand_by_evaluate_and_by_the_trainer(tmp_path):
    # User 1 has the target in the history; user 2 is too short to be evaluated; user 3 is longer than max_length.
    sequences = sequences_of([1, 2, 3, 4], [5, 6, 7, 5, 6], [8, 9], list(range(1, 12)), n_items=14)
    trainer = trainer_for(tmp_path, sequences, max_length=3)
    metrics = trainer.evaluate(leave_one_out(sequences).test, metric_key_prefix="test")

    ranks = {"": [], "_with_seen": []}
    all_scores, targets, seen = [], [], []
    for history in ([1, 2, 3, 4], [5, 6, 7, 5, 6], list(range(1, 12))):
        *past, target = history
        scores = trainer.model(torch.tensor([past[-3:]])).logits[0]
        others = [row for row in range(1, 15) if row != target]
        ranks["_with_seen"].append(sum(scores[row] >= scores[target] for row in others).item())
        unseen = [row for row in others if row not in past]
        ranks[""].append(sum(scores[row] >= scores[target] for row in unseen).item())
        all_scores.append(scores.detach().numpy())
        targets.append(target)
        seen.append(past)
    for suffix, ranks_of_mode in ranks.items():
        for k in (1, 5, 10, 20):
            hits = [rank < k for rank in ranks_of_mode]
            by_hand = {
                "hr": sum(hits) / 3,
                "ndcg": sum(hit / math.log2(rank + 2) for hit, rank in zip(hits, ranks_of_mode, strict=True)) / 3,
                "mrr": sum(hit / (rank + 1) for hit, rank in zip(hits, ranks_of_mode, strict=True)) / 3,
            }
            for name, expected in by_hand.items():
                assert metrics[f"test_{name}@{k}{suffix}"] == pytest.approx(expected), (name, k, suffix)

    by_evaluate = evaluate.load(full_ranking_module.__file__).compute(
        predictions=all_scores, references=targets, seen_items=seen
    )
    assert by_evaluate == pytest.approx({name: metrics[f"test_{name}"] for name in by_evaluate})
    assert len(by_evaluate) == 24


def test_never_gathers_scores(tmp_path):
    sequences = walks()
    trainer = trainer_for(tmp_path, sequences)
    predictions = trainer.predict(leave_one_out(sequences).test)
    assert [ranks.shape for ranks in predictions.predictions] == [(40,), (40,)]
    assert predictions.label_ids.shape == (40,)


def test_a_checkpoint_holds_all_and_no_pickle(tmp_path):
    trainer = trainer_for(tmp_path / "run", walks())
    trainer.save_model(tmp_path / "saved")
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    assert {"config.json", "model.safetensors", "catalog.parquet", "modeling_mamba4rec.py"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl", ".pth"))]
    assert json.loads((tmp_path / "saved/training_args.json").read_text())["max_length"] == 10


class StopAt(TrainerCallback):
    """Ends training after a step, as a kill after the step's checkpoint would."""

    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            control.should_training_stop = True


@pytest.mark.parametrize(
    ("arguments", "expected"), [({}, [4, 4]), ({"train_on": "last_position"}, [2, 2])], ids=["every", "last"]
)
def test_a_position_weighs_the_same_among_short_and_long_histories(tmp_path, arguments, expected):
    # Without the two events held out: six inputs in a batch of two long histories, two in one of two short ones.
    sequences = sequences_of([1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1], [1, 2, 3, 4], [5, 6, 1, 2], n_items=6)
    arguments = {"train_sampling_strategy": "group_by_length", "per_device_train_batch_size": 2} | arguments
    trainer = trainer_for(tmp_path, sequences, **arguments)
    batches = list(trainer.get_train_dataloader())
    assert sorted(int(batch["attention_mask"].sum()) for batch in batches) == [2, 6]
    counts = [float(trainer._get_num_items_in_batch([batch], trainer.args.device)) for batch in batches]
    assert counts == pytest.approx(expected)
    assert float(trainer._get_num_items_in_batch(batches, trainer.args.device)) == pytest.approx(sum(expected))


@pytest.mark.parametrize("window", ["last", "random"])
@pytest.mark.parametrize("order", ["random", "group_by_length"])
@pytest.mark.parametrize("stop_at", [5, 8], ids=["end of an epoch", "middle of an epoch"])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, stop_at, order, window):
    # 40 users in batches of 8: 5 steps an epoch. Histories longer than 10 make the random windows matter.
    arguments = {
        "save_strategy": "steps",
        "save_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "window": window,
        "train_sampling_strategy": order,
    }
    whole = trainer_for(tmp_path / "whole", walks(), **arguments)
    whole.train()
    interrupted = trainer_for(tmp_path / "parts", walks(), callbacks=[StopAt(stop_at)], **arguments)
    interrupted.train()
    set_seed(99)
    resumed = trainer_for(tmp_path / "parts", walks(), **arguments)
    checkpoint = checkpoint_to_resume(str(tmp_path / "parts"), "true")
    assert checkpoint.endswith(f"checkpoint-{stop_at}")
    resumed.train(resume_from_checkpoint=checkpoint)

    assert resumed.state.global_step == whole.state.global_step == 15
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    metrics = [trainer.evaluate() for trainer in (whole, resumed)]
    assert {k: v for k, v in metrics[0].items() if "@" in k} == {k: v for k, v in metrics[1].items() if "@" in k}


@pytest.mark.parametrize(
    "sampling",
    [
        {"loss": "bce", "num_negatives": 2, "negatives_distribution": "in_batch"},
        {"loss": "sampled_softmax", "num_negatives": 5, "negatives_distribution": "mixed", "share_negatives": True},
        {"loss": "gbce", "num_negatives": 3, "negatives_distribution": "popularity", "train_on": "every_prefix"},
    ],
    ids=lambda sampling: sampling["loss"],
)
def test_negatives_are_the_same_after_resuming_and_with_workers(tmp_path, sampling):
    # 5 steps an epoch, or as many more as there are prefixes: stopped in the middle of the second.
    arguments = {"eval_strategy": "no", "save_strategy": "steps", "save_steps": 1, "load_best_model_at_end": False}
    arguments |= {"num_train_epochs": 2, "per_device_train_batch_size": 64 if "train_on" in sampling else 8} | sampling
    whole = trainer_for(tmp_path / "whole", walks(), **arguments)
    whole.train()
    stop_at = whole.state.global_step - 2
    trainer_for(tmp_path / "parts", walks(), callbacks=[StopAt(stop_at)], **arguments).train()
    set_seed(99)
    resumed = trainer_for(tmp_path / "parts", walks(), dataloader_num_workers=2, **arguments)
    resumed.train(resume_from_checkpoint=str(tmp_path / "parts" / f"checkpoint-{stop_at}"))
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_negatives_do_not_depend_on_how_batches_are_cut(tmp_path):
    weights = []
    for batch, steps in ((40, 1), (10, 4)):
        sequences = walks()
        model = small_model(sequences.catalog.vocab_size, hidden_dropout_prob=0.0)
        arguments = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps, "num_train_epochs": 2}
        trainer = trainer_for(tmp_path / str(batch), sequences, model=model, optim="sgd", loss="bce", **arguments)
        trainer.train()
        weights.append(trainer.model.item_embeddings.weight.detach())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-6)


def test_a_checkpoint_records_its_loss(tmp_path):
    trainer = trainer_for(tmp_path / "run", walks(), loss="gbce", num_negatives=4, gbce_t=0.5)
    trainer.save_model(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved/config.json").read_text())
    assert (saved["item_loss"], saved["num_negatives"], saved["gbce_t"]) == ("gbce", 4, 0.5)
    # Trained on with another loss it records that; a trainer that only evaluates leaves the record alone.
    trainer_for(tmp_path / "on", walks(), model=trainer.model)
    assert (trainer.model.config.item_loss, trainer.model.config.num_negatives) == ("full_softmax", None)
    trainer.model.config.item_loss = "bpr"
    SeqRecTrainer(trainer.model, trainer.args, eval_dataset=leave_one_out(walks()).test)
    assert trainer.model.config.item_loss == "bpr"


def test_labels_are_smoothed_in_training_alone(tmp_path):
    trainer = trainer_for(tmp_path, walks(), label_smoothing_factor=0.25)
    model, batch = trainer.model.eval(), next(iter(trainer.get_train_dataloader()))
    assert model.config.label_smoothing == 0.25
    output = model(**batch, output_logits=True)
    asked = batch["labels"] != -100
    scores, targets = output.logits[asked][:, 1:], batch["labels"][asked] - 1
    torch.testing.assert_close(output.loss, torch.nn.functional.cross_entropy(scores, targets))
    # Without dropout, so that the scores are those that were just computed.
    model.item_table.training = True
    smoothed = torch.nn.functional.cross_entropy(scores, targets, label_smoothing=0.25)
    torch.testing.assert_close(trainer.compute_loss(model, batch), smoothed)


def test_popularity_is_that_of_the_training_events(tmp_path):
    # Held out: 3 and 1, 5 and 5. Every prefix has the first events again and again; they count once.
    sequences = sequences_of([1, 1, 2, 3, 1], [2, 4, 5, 5], n_items=6)
    arguments = {
        "loss": "bce",
        "negatives_distribution": "popularity",
        "negatives_alpha": 1.0,
        "train_on": "every_prefix",
    }
    popularity = trainer_for(tmp_path, sequences, **arguments).data_collator.popularity
    assert popularity.rows.tolist() == [1, 2, 4]
    shares = popularity.probabilities(popularity.rows, None)
    assert shares == pytest.approx([2 / 5, 2 / 5, 1 / 5])


def test_more_negatives_than_items(tmp_path):
    with pytest.raises(ValueError, match=r"`num_negatives` must be at most the 11 items .* got 512"):
        trainer_for(tmp_path, walks(), loss="sampled_softmax")


def test_every_prefix_is_a_sample(tmp_path):
    trainer = trainer_for(tmp_path, sequences_of([*range(1, 8)], [*range(1, 6)]), train_on="every_prefix")
    batches = list(trainer.get_train_dataloader())
    labels = torch.cat([batch["labels"].flatten() for batch in batches])
    assert sorted(labels[labels > 0].tolist()) == sorted([2, 3, 4, 5, 2, 3])
    assert all(batch["labels"].shape == batch["input_ids"].shape[:1] for batch in batches)


def test_sliding_windows_train_on_all_of_a_history(tmp_path):
    # 58 training events: one window of 11, or 6 of them, 10 apart.
    sequences = sequences_of([*range(1, 61)], [*range(1, 6)])
    trainer = trainer_for(tmp_path, sequences, window="sliding", num_train_epochs=1)
    labels = torch.cat([batch["labels"].flatten() for batch in trainer.get_train_dataloader()])
    # One of 1, 2, 3 is left to the second user.
    assert sorted(labels[labels > 0].tolist()) == sorted([*range(2, 59), 2, 3])
    trainer.train()
    assert trainer.state.global_step == 1
    half = trainer_for(tmp_path / "half", sequences, window="sliding", window_stride=5)
    assert len(half.train_dataset) == 11 + 1


def streaming_trainer(folder, dataset_folder, callbacks=(), **arguments):
    """Make a trainer as a run with `--streaming true` does."""
    splits = streamed_leave_one_out(
        StreamedHistories(dataset_folder, batch_size=8, max_length=10, buffer_size=20, **stream_options(arguments)),
        n_evaluated=100,
    )
    arguments = {
        "per_device_train_batch_size": 8,
        "num_train_epochs": 3,
        "max_length": 10,
        "disable_tqdm": True,
        "use_cpu": True,
        "streaming": True,
    } | arguments
    return SeqRecTrainer(
        small_model(splits.test.sequences.catalog.vocab_size),
        SeqRecTrainingArguments(output_dir=str(folder), **arguments),
        train_dataset=splits.train,
        eval_dataset=splits.validation,
        callbacks=list(callbacks),
    )


def stream_options(arguments):
    return {"window": arguments.get("window", "last"), "num_workers": arguments.get("dataloader_num_workers", 0)}


@pytest.fixture
def walks_folder(tmp_path):
    """Write the histories of `walks()` into two shards of row groups of 10 users."""
    sequences = walks()
    folder = tmp_path / "walks"
    (folder / "sequences").mkdir(parents=True)
    sequences.catalog.save(folder)
    (folder / "statistics.json").write_text(json.dumps({"n_users": 40}))
    histories = pa.array([sequences.history(user).tolist() for user in range(40)], pa.list_(pa.int32()))
    for first in (0, 20):
        table = pa.table(
            {"user_id": sequences.user_ids[first : first + 20], "item_ids": histories[first : first + 20]}
        )
        pq.write_table(table, folder / f"sequences/part-{first}.parquet", row_group_size=10)
    return folder


@pytest.mark.parametrize("window", ["last", "random"])
@pytest.mark.parametrize("stop_at", [5, 8], ids=["end of an epoch", "middle of an epoch"])
def test_a_resumed_streamed_run_equals_an_uninterrupted_one(tmp_path, walks_folder, stop_at, window):
    arguments = {
        "save_strategy": "steps",
        "save_steps": 1,
        "eval_strategy": "steps",
        "eval_steps": 1,
        "window": window,
    }
    whole = streaming_trainer(tmp_path / "whole", walks_folder, **arguments)
    whole.train()
    streaming_trainer(tmp_path / "parts", walks_folder, [StopAt(stop_at)], **arguments).train()
    set_seed(99)
    resumed = streaming_trainer(tmp_path / "parts", walks_folder, **arguments)
    resumed.train(resume_from_checkpoint=checkpoint_to_resume(str(tmp_path / "parts"), "true"))
    # 40 users in batches of 8: 5 steps an epoch, as in memory.
    assert resumed.state.global_step == whole.state.global_step == 15
    assert whole.num_examples(whole.get_train_dataloader()) == 40
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_streaming_reads_every_epoch_anew(tmp_path, walks_folder):
    trainer = streaming_trainer(tmp_path / "run", walks_folder, window="sliding")
    batches = []
    for epoch in (0, 1):
        loader = trainer.get_train_dataloader()
        loader.set_epoch(epoch)
        batches.append(list(loader))
        assert len(batches[-1]) == len(loader) == len(trainer.train_dataset)
    asked = [
        sorted(label for batch in epoch for label in batch["labels"].flatten().tolist() if label > 0)
        for epoch in batches
    ]
    in_memory = trainer_for(tmp_path / "memory", walks(), window="sliding").get_train_dataloader()
    expected = sorted(label for batch in in_memory for label in batch["labels"].flatten().tolist() if label > 0)
    assert asked == [expected, expected]
    assert not torch.equal(batches[0][0]["input_ids"], batches[1][0]["input_ids"])


def test_evaluation_is_not_reordered(tmp_path):
    sequences = walks()
    test = leave_one_out(sequences).test
    predictions = [
        trainer_for(tmp_path / order, sequences, train_sampling_strategy=order).predict(test)
        for order in ("random", "group_by_length")
    ]
    assert predictions[0].label_ids.tolist() == predictions[1].label_ids.tolist() == test.targets.tolist()
    assert predictions[0].metrics["test_ndcg@10"] == predictions[1].metrics["test_ndcg@10"]


def test_another_seed_is_another_run(tmp_path):
    weights = []
    for seed in (1, 1, 2):
        trainer = trainer_for(tmp_path / str(len(weights)), walks(), num_train_epochs=1, seed=seed)
        trainer.train()
        weights.append(trainer.model.item_embeddings.weight.detach().clone())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_broken_loss_stops_the_run(tmp_path):
    trainer = trainer_for(tmp_path, walks(), learning_rate=1e-2)

    class BreakAtStepTwo(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            if state.global_step == 2:
                model.item_embeddings.weight.data[3] = torch.nan

    trainer.add_callback(BreakAtStepTwo())
    with pytest.raises(FloatingPointError, match=r"loss is nan at step 3 .* learning rate 0\.008"):
        trainer.train()


def test_accumulated_batches_equal_one_large_batch(tmp_path):
    # Dropout off: its draws depend on the batch's shape. The loss is a mean over positions, not over batches.
    weights = []
    for batch, steps in ((40, 1), (10, 4)):
        sequences = walks()
        model = small_model(sequences.catalog.vocab_size, hidden_dropout_prob=0.0)
        arguments = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps, "num_train_epochs": 2}
        trainer = trainer_for(tmp_path / str(batch), sequences, model=model, optim="sgd", **arguments)
        trainer.train()
        weights.append(trainer.model.item_embeddings.weight.detach())
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-6)


def test_weight_decay_spares_the_state_space(tmp_path):
    trainer = trainer_for(tmp_path, walks())
    decayed = trainer.get_decay_parameter_names(trainer.model)
    assert "layers.0.mixer.in_proj.weight" in decayed
    assert not [name for name in decayed if name.endswith(("A_log", ".D", "bias"))]


def test_stops_early(tmp_path):
    trainer = trainer_for(tmp_path, walks(), num_train_epochs=30, early_stopping_patience=2, learning_rate=1e-12)
    trainer.train()
    assert trainer.state.epoch == 3


def test_a_catalog_of_another_size(tmp_path):
    sequences = walks()
    with pytest.raises(ValueError, match="`catalog` has 12 items, but the model has 19"):
        trainer_for(tmp_path, sequences, model=small_model(20))


def test_a_catalog_with_other_items(tmp_path):
    sequences = walks()
    trainer = trainer_for(tmp_path, sequences)
    # So that what is saved says which catalog it knows.
    assert trainer.model.config.catalog_fingerprint == sequences.catalog.fingerprint()
    with pytest.raises(ValueError, match="`catalog` is not the model's"):
        trainer_for(tmp_path, sequences, model=small_model(13, catalog_fingerprint="0123456789abcdef"))


def test_evaluation_with_nan_weights_is_an_error(tmp_path):
    trainer = trainer_for(tmp_path, walks())
    trainer.model.item_embeddings.weight.data[5] = np.nan
    with pytest.raises(ValueError, match="40 of the 40 users of this batch are NaN or infinite"):
        trainer.evaluate()


class TestTheWaysOfTransformersTrainer:
    @pytest.fixture
    def arguments(self, tmp_path):
        return {
            "output_dir": str(tmp_path),
            "max_steps": 2,
            "report_to": "none",
            "eval_strategy": "no",
            "save_strategy": "no",
            "load_best_model_at_end": False,
            "disable_tqdm": True,
            "use_cpu": True,
        }

    @pytest.fixture
    def data(self):
        sequences = walks()
        splits = leave_one_out(sequences)
        return {"train_dataset": splits.train, "eval_dataset": splits.validation, "catalog": sequences.catalog}

    def test_model_init(self, arguments, data):
        made = []

        def model_init():
            made.append(Mamba4Rec(Mamba4RecConfig(vocab_size=13, hidden_size=16, state_size=4)))
            return made[-1]

        args = SeqRecTrainingArguments(**arguments, loss="bce", num_negatives=2, constant_bias=False)
        trainer = SeqRecTrainer(model_init=model_init, args=args, **data)
        trainer.train()
        trained = trainer.accelerator.unwrap_model(trainer.model)
        assert trained is made[-1]
        # Each of them is told what it is trained for.
        assert (trained.config.item_loss, trained.config.constant_bias) == ("bce", False)
        assert trained.config.catalog_fingerprint == data["catalog"].fingerprint()
        assert "eval_ndcg@10" in trainer.evaluate()
        trainer.args.loss = "bpr"
        with pytest.raises(ValueError, match="must stay as they were when the Trainer was made"):
            trainer.train()

    def test_model_init_with_what_belongs_to_one_model(self, arguments, data):
        args = SeqRecTrainingArguments(**arguments, loss="bce", embedding_optimizer="rowwise_adagrad")
        with pytest.raises(ValueError, match="`model_init` must come without `embedding_optimizer`"):
            SeqRecTrainer(model_init=lambda: small_model(13), args=args, **data)
        with pytest.raises(ValueError, match="`model` must be left out with `model_init`"):
            SeqRecTrainer(small_model(13), SeqRecTrainingArguments(**arguments), model_init=lambda: None, **data)
        with pytest.raises(ValueError, match="`model` must be given, or `model_init`"):
            SeqRecTrainer(args=SeqRecTrainingArguments(**arguments), **data)

    def test_plain_training_arguments(self, arguments, data):
        args = TrainingArguments(**arguments, learning_rate=0.5, per_device_train_batch_size=5)
        trainer = SeqRecTrainer(small_model(13), args, **data)
        assert (trainer.args.learning_rate, trainer.args.train_batch_size) == (0.5, 5)
        assert (trainer.args.max_length, trainer.args.loss) == (200, "full_softmax")
        trainer.train()
        assert "eval_ndcg@10" in trainer.evaluate()

    def test_plain_training_arguments_with_the_best_checkpoint(self, arguments, data):
        strategy = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
        args = TrainingArguments(**(arguments | strategy | {"load_best_model_at_end": True}))
        trainer = SeqRecTrainer(small_model(13), args, **data)
        trainer.train()
        assert trainer.state.best_global_step in (1, 2)

    def test_no_arguments(self, data, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert SeqRecTrainer(small_model(13), **data).args.output_dir == "runs/default"

    def test_more_metrics(self, arguments, data):
        def compute_metrics(prediction):
            ranks, ranks_with_seen = prediction.predictions
            assert (ranks <= ranks_with_seen).all()
            assert set(prediction.label_ids.tolist()) <= set(range(1, 13))
            return {"mean_rank": float(ranks.mean())}

        args = SeqRecTrainingArguments(**arguments)
        metrics = SeqRecTrainer(small_model(13), args, compute_metrics=compute_metrics, **data).evaluate()
        assert 0 <= metrics["eval_mean_rank"] < 12
        assert "eval_ndcg@10" in metrics

    def test_datasets_that_are_no_histories(self, arguments, data):
        args = SeqRecTrainingArguments(**arguments)
        rows = Dataset.from_dict({"item_ids": [[1, 2, 3]]})
        with pytest.raises(TypeError, match=r"`train_dataset` must be a view of histories.*got a datasets\."):
            SeqRecTrainer(small_model(13), args, train_dataset=rows)
        with pytest.raises(TypeError, match=r"`eval_dataset` must be a view of histories"):
            SeqRecTrainer(small_model(13), args, **data | {"eval_dataset": rows})
