"""A run that is killed and resumed ends with the very weights of one that was left alone."""

import json
import multiprocessing
import os
import signal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import set_seed
from transformers.trainer_callback import TrainerState

from hf_seqrec import BERT4Rec, BERT4RecConfig, MoEMaTrRec, MoEMaTrRecConfig
from hf_seqrec.data.leave_one_out import leave_one_out
from hf_seqrec.data.streaming import StreamedHistories, streamed_leave_one_out
from hf_seqrec.training.run_folder import checkpoint_to_resume
from hf_seqrec.training.trainer import SeqRecTrainer
from hf_seqrec.training.training_args import SeqRecTrainingArguments
from tests.helpers import sequences_of, small_model, walks

N_ITEMS = 12


def bert4rec():
    config = BERT4RecConfig(
        vocab_size=BERT4RecConfig.vocab_size_for(N_ITEMS), hidden_size=16, num_hidden_layers=1, mask_probability=0.3
    )
    return BERT4Rec(config)


def authors_moematrrec():
    return MoEMaTrRec(
        MoEMaTrRecConfig(
            vocab_size=N_ITEMS + 1, hidden_size=16, state_size=4, causal=False, max_position_embeddings=10
        )
    )


def mamba4rec():
    return small_model(N_ITEMS + 1)


def histories_longer_than_the_model_sees():
    """20 users with 12 to 31 events, so that windows of 10 matter."""
    return sequences_of(*([(user + event) % N_ITEMS + 1 for event in range(12 + user)] for user in range(20)))


def trainer_for(folder, model=mamba4rec, data=None, sequences=None, **arguments):
    # 5 steps an epoch or more: what is saved at step 7 is in the middle of one.
    arguments = {
        "max_steps": 12,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        "max_length": 10,
        "save_strategy": "steps",
        "save_steps": 7,
        "eval_strategy": "no",
        "load_best_model_at_end": False,
        "save_total_limit": 10,
        "disable_tqdm": True,
        "use_cpu": True,
    } | arguments
    if data is None:
        splits = leave_one_out(sequences or histories_longer_than_the_model_sees())
    else:
        stream = StreamedHistories(data, batch_size=4, max_length=10, window=arguments.get("window", "last"))
        splits = streamed_leave_one_out(stream, n_evaluated=20)
    set_seed(0)
    return SeqRecTrainer(
        model(), SeqRecTrainingArguments(str(folder), **arguments), splits.train, eval_dataset=splits.validation
    )


SAMPLED = {"num_negatives": 3}
# Each loss, kind of negatives, place to train on, window, order and objective in one of them at least.
CASES = {
    "full softmax": {},
    "label smoothing": {"label_smoothing_factor": 0.1},
    "sampled softmax, uniform": {"loss": "sampled_softmax", **SAMPLED},
    "sampled softmax, shared": {"loss": "sampled_softmax", "share_negatives": True, **SAMPLED},
    "last position, bpr, mixed": {
        "train_on": "last_position",
        "loss": "bpr",
        "negatives_distribution": "mixed",
        **SAMPLED,
    },
    "every prefix, bce": {"train_on": "every_prefix", "loss": "bce", **SAMPLED},
    "random windows, gbce by popularity": {
        "window": "random",
        "loss": "gbce",
        "negatives_distribution": "popularity",
        **SAMPLED,
    },
    "sliding windows, bce in the batch": {
        "window": "sliding",
        "loss": "bce",
        "negatives_distribution": "in_batch",
        **SAMPLED,
    },
    "grouped by length, bpr": {"train_sampling_strategy": "group_by_length", "loss": "bpr", **SAMPLED},
    "accumulated": {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2, "loss": "bce", **SAMPLED},
    "cloze": {"model": bert4rec},
    "cloze, random windows, bce": {"model": bert4rec, "window": "random", "loss": "bce", **SAMPLED},
    "last item": {"model": authors_moematrrec},
}
STREAMED = {
    "random windows, gbce by popularity": {
        "window": "random",
        "loss": "gbce",
        "negatives_distribution": "popularity",
        **SAMPLED,
    },
    "sliding windows, in the batch": {
        "window": "sliding",
        "loss": "sampled_softmax",
        "negatives_distribution": "in_batch",
        **SAMPLED,
    },
    "cloze": {"model": bert4rec},
}


def assert_resumed_equals_uninterrupted(folder, **case):
    whole = trainer_for(folder, **case)
    whole.train()
    resumed = trainer_for(folder, **case)
    # Whatever the new process has drawn before.
    set_seed(99)
    resumed.train(resume_from_checkpoint=str(folder / "checkpoint-7"))
    assert resumed.state.global_step == whole.state.global_step == 12
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    at_the_checkpoint = trainer_for(folder, **case)
    at_the_checkpoint._load_from_checkpoint(str(folder / "checkpoint-7"))
    moved = at_the_checkpoint.model.item_embeddings.weight - whole.model.item_embeddings.weight
    assert moved.abs().max() > 1e-3


@pytest.mark.parametrize("case", CASES)
def test_equals_an_uninterrupted_run(tmp_path, case):
    assert_resumed_equals_uninterrupted(tmp_path, **CASES[case])


@pytest.fixture(scope="module")
def dataset_folder(tmp_path_factory):
    """Write the histories in row groups of 5 users."""
    sequences = histories_longer_than_the_model_sees()
    folder = tmp_path_factory.mktemp("dataset")
    (folder / "sequences").mkdir()
    sequences.catalog.save(folder)
    (folder / "statistics.json").write_text(json.dumps({"n_users": sequences.n_users}))
    histories = [sequences.history(user).tolist() for user in range(sequences.n_users)]
    table = pa.table({"user_id": sequences.user_ids, "item_ids": pa.array(histories, pa.list_(pa.int32()))})
    pq.write_table(table, folder / "sequences/part-0.parquet", row_group_size=5)
    return folder


@pytest.mark.parametrize("case", STREAMED)
def test_streaming_equals_an_uninterrupted_run(tmp_path, dataset_folder, case):
    assert_resumed_equals_uninterrupted(tmp_path, data=dataset_folder, streaming=True, **STREAMED[case])


# What a save writes, in this order, and whether a kill comes before it is written or after half of it.
SAVED = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")


def killed_while_saving(file, folder):
    """Train, and die by `kill -9` when half of one file of the second checkpoint is written."""

    def die_after(write):
        def write_and_die(*arguments, **options):
            written = write(*arguments, **options)
            path = folder / "checkpoint-4" / file
            if path.exists():
                os.truncate(path, path.stat().st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            return written

        return write_and_die

    trainer = trainer_for(folder, sequences=walks(), save_steps=2)
    torch.save = die_after(torch.save)
    TrainerState.save_to_json = die_after(TrainerState.save_to_json)
    trainer.model.save_pretrained = die_after(trainer.model.save_pretrained)
    trainer.train()


@pytest.fixture(scope="module")
def one_thread():
    """Sum in the same order before and after: a fork has one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory, one_thread):
    trainer = trainer_for(tmp_path_factory.mktemp("whole"), sequences=walks(), save_steps=2)
    trainer.train()
    return trainer.model.state_dict()


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("file", SAVED)
def test_killed_in_the_middle_of_a_save(tmp_path, left_alone, file):
    run = multiprocessing.get_context("fork").Process(target=killed_while_saving, args=(file, tmp_path))
    run.start()
    run.join(120)
    assert run.exitcode == -signal.SIGKILL
    half = tmp_path / "checkpoint-4"
    assert [name for name in SAVED if (half / name).exists()] == list(SAVED[: SAVED.index(file) + 1])
    checkpoint = checkpoint_to_resume(str(tmp_path), "true")
    assert checkpoint == str(tmp_path / "checkpoint-2")
    resumed = trainer_for(tmp_path, sequences=walks(), save_steps=2)
    resumed.train(resume_from_checkpoint=checkpoint)
    for name, tensor in left_alone.items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    # Written over to its end.
    assert checkpoint_to_resume(str(tmp_path), str(half)) == str(half)


def damage(path, how):
    if how == "missing":
        path.unlink()
    else:
        os.truncate(path, {"half": path.stat().st_size // 2, "empty": 0}[how])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    trainer_for(folder, sequences=walks(), max_steps=2, save_steps=1).train()
    return folder


@pytest.mark.parametrize("how", ["missing", "half", "empty"])
@pytest.mark.parametrize("file", SAVED)
def test_a_damaged_checkpoint_is_skipped(tmp_path, finished, file, how):
    # As a power cut leaves it, which keeps no order of what was written.
    for checkpoint in finished.glob("checkpoint-*"):
        (tmp_path / checkpoint.name).mkdir()
        for path in checkpoint.iterdir():
            (tmp_path / checkpoint.name / path.name).write_bytes(path.read_bytes())
    newest = tmp_path / "checkpoint-2"
    assert checkpoint_to_resume(str(tmp_path), "true") == str(newest)
    damage(newest / file, how)
    assert checkpoint_to_resume(str(tmp_path), "true") == str(tmp_path / "checkpoint-1")
    with pytest.raises(ValueError, match=rf"checkpoint-2 has no readable {file}"):
        checkpoint_to_resume(str(tmp_path), str(newest))


def test_a_checkpoint_that_is_written_again_is_not_complete_until_it_is(tmp_path):
    trainer = trainer_for(tmp_path, sequences=walks(), max_steps=2, save_steps=2)
    trainer.train()
    trainer.model.save_pretrained = None  # what is called first
    with pytest.raises(TypeError):
        trainer._save_checkpoint(trainer.model, trial=None)
    assert checkpoint_to_resume(str(tmp_path), "true") is None
