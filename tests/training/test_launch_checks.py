import pytest

from hf_seqrec.data.leave_one_out import leave_one_out
from hf_seqrec.training.launch_checks import check_launcher
from hf_seqrec.training.trainer import SeqRecTrainer
from hf_seqrec.training.training_args import SeqRecTrainingArguments
from tests.helpers import small_model, walks
from tests.ranks import on_ranks

# What `accelerate launch` leaves in the environment of the one process that it starts.
_OF_ACCELERATE = {"ACCELERATE_MIXED_PRECISION": "no", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture
def environment(monkeypatch):
    for name in (*_OF_ACCELERATE, "WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    return lambda **variables: [monkeypatch.setenv(name, value) for name, value in variables.items()]


def test_accelerate_asked_for_several_processes_starts_one(environment):
    environment(**_OF_ACCELERATE)
    with pytest.raises(
        ValueError, match=r"`--num_processes` of `accelerate launch`.*torchrun.*two_cpu_processes\.yaml"
    ):
        check_launcher(1)
    check_launcher(2)  # mpirun starts several, and sets no WORLD_SIZE


def test_launchers_that_do_what_they_are_asked_for(environment):
    check_launcher(1)
    environment(MASTER_ADDR="127.0.0.1")
    check_launcher(1)  # no `accelerate launch`
    environment(**_OF_ACCELERATE, WORLD_SIZE="1")
    check_launcher(1)  # torchrun --nproc_per_node 1


def train(rank, folder, of_each_rank):
    """Train for a step on what this rank has, and say how many steps were made."""
    sequences = of_each_rank[rank]
    splits = leave_one_out(sequences)
    trainer = SeqRecTrainer(
        small_model(sequences.catalog.vocab_size),
        SeqRecTrainingArguments(str(folder), max_steps=1, eval_strategy="no", save_strategy="no", use_cpu=True),
        train_dataset=splits.train,
        eval_dataset=splits.validation,
        catalog=sequences.catalog,
    )
    trainer.train()
    return trainer.state.global_step


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (walks(n_users=41), r"rank 0: .*training samples 40, .*; rank 1: .*training samples 41, "),
        (walks(n_items=13), r"rank 0: .*items 12, .*; rank 1: .*items 13, "),
        (walks(seed=1), r"rank 0: hash of the training histories \w+, .*; rank 1: hash of the training histories"),
    ],
    ids=["another number of users", "another catalog", "other histories"],
)
def test_ranks_that_disagree_on_the_dataset(tmp_path, other, message):
    for answer in on_ranks(train, tmp_path, [walks(), other]):
        with pytest.raises(ValueError, match=rf"The 2 processes must train on the same data, but found {message}"):
            raise answer


def test_ranks_that_agree(tmp_path):
    assert on_ranks(train, tmp_path, [walks(), walks()]) == [1, 1]
