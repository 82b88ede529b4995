import json

import pytest
import torch
from safetensors.torch import save_file

from hf_seqrec.training.run_folder import checkpoint_to_resume, claim_run_folder
from hf_seqrec.training.run_record import RunIdentity, read_run

RUN = RunIdentity({"model_type": "mamba4rec", "hidden_size": 64}, {"dataset": "synthetic", "num_train_epochs": 3})


def checkpoint(folder, step, state='{"global_step": 1}'):
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    save_file({"weight": torch.ones(3)}, path / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "rng_state_1.pth"):
        torch.save({"step": step}, path / name)
    if state is not None:
        (path / "trainer_state.json").write_text(state)
    return str(path)


def test_claims_a_new_folder(tmp_path):
    claim_run_folder(str(tmp_path / "a/b"), RUN, resume=None, overwrite=False)
    assert json.loads((tmp_path / "a/b/run.json").read_text()) == {
        "same": RUN.same,
        "recorded": RUN.recorded,
        "changes": [],
    }


def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path):
    claim_run_folder(str(tmp_path), RUN, resume=None, overwrite=False)
    claim_run_folder(str(tmp_path), RUN, resume=True, overwrite=False)
    assert checkpoint_to_resume(str(tmp_path), "true") is None


@pytest.mark.parametrize("resume", ["true", "True", True])
def test_resumes_from_the_newest_checkpoint_that_was_written_to_its_end(tmp_path, resume):
    checkpoint(tmp_path, 90)
    newest = checkpoint(tmp_path, 120)
    checkpoint(tmp_path, 1000, state=None)
    checkpoint(tmp_path, 1100, state='{"global_st')
    assert checkpoint_to_resume(str(tmp_path), resume) == newest


@pytest.mark.parametrize("resume", [None, "false", False])
def test_does_not_resume_unasked(tmp_path, resume):
    checkpoint(tmp_path, 90)
    assert checkpoint_to_resume(str(tmp_path), resume) is None


def test_resumes_from_a_named_checkpoint(tmp_path):
    named = checkpoint(tmp_path, 90)
    checkpoint(tmp_path, 120)
    assert checkpoint_to_resume(str(tmp_path), named) == named
    cut_short = checkpoint(tmp_path, 200, state=None)
    with pytest.raises(ValueError, match=r"checkpoint-200 has no readable trainer_state\.json"):
        checkpoint_to_resume(str(tmp_path), cut_short)


def test_every_rank_needs_its_random_state(tmp_path):
    checkpoint(tmp_path, 90)
    newest = tmp_path / "checkpoint-120"
    checkpoint(tmp_path, 120)
    (newest / "rng_state_1.pth").write_bytes(b"PK\x03\x04")
    assert checkpoint_to_resume(str(tmp_path), "true").endswith("checkpoint-90")
    with pytest.raises(ValueError, match=r"checkpoint-120 has no readable rng_state_1\.pth"):
        checkpoint_to_resume(str(tmp_path), str(newest))


def test_refuses_an_earlier_run(tmp_path):
    claim_run_folder(str(tmp_path), RUN, resume=None, overwrite=False)
    with pytest.raises(ValueError, match=r"holds an earlier run \(mamba4rec on synthetic\).*--resume_from_checkpoint"):
        claim_run_folder(str(tmp_path), RUN, resume=None, overwrite=False)


def test_refuses_to_resume_another_run(tmp_path):
    claim_run_folder(str(tmp_path), RUN, resume=None, overwrite=False)
    wider = RUN._replace(same=RUN.same | {"hidden_size": 32})
    with pytest.raises(ValueError, match=r"is of another run \(hidden_size: 64 there, 32 here\)"):
        claim_run_folder(str(tmp_path), wider, resume=True, overwrite=False)


def test_refuses_to_resume_a_checkpoint_of_another_folders_run_as_this_one(tmp_path):
    claim_run_folder(str(tmp_path / "old"), RUN, resume=None, overwrite=False)
    named = checkpoint(tmp_path / "old", 90)
    wider = RUN._replace(same=RUN.same | {"hidden_size": 32})
    with pytest.raises(ValueError, match=r"checkpoint-90 is of another run \(hidden_size: 64 there, 32 here\)"):
        claim_run_folder(str(tmp_path / "new"), wider, resume=named, overwrite=False)
    assert not (tmp_path / "new").exists()
    claim_run_folder(str(tmp_path / "new"), RUN, resume=named, overwrite=False)


def test_what_a_resumed_run_changes_is_recorded_each_time(tmp_path):
    claim_run_folder(str(tmp_path), RUN, resume=None, overwrite=False)
    checkpoint(tmp_path, 90)
    longer = RUN._replace(recorded=RUN.recorded | {"num_train_epochs": 5})
    claim_run_folder(str(tmp_path), longer, resume=True, overwrite=False)
    claim_run_folder(str(tmp_path), longer, resume=True, overwrite=False)
    checkpoint(tmp_path, 150)
    claim_run_folder(str(tmp_path), RUN, resume=True, overwrite=False)
    assert read_run(tmp_path)["changes"] == [
        {"resumed_from": "checkpoint-90", "num_train_epochs": [3, 5]},
        {"resumed_from": "checkpoint-150", "num_train_epochs": [5, 3]},
    ]


def test_a_run_of_an_earlier_version(tmp_path):
    (tmp_path / "run.json").write_text('{"model_type": "mamba4rec", "dataset": "log.csv", "hidden_size": 64}')
    checkpoint(tmp_path, 90)
    with pytest.raises(ValueError, match=r"holds an earlier run \(mamba4rec on log\.csv\)"):
        claim_run_folder(str(tmp_path), RUN, resume=None, overwrite=False)
    # What it did not record cannot be compared.
    claim_run_folder(str(tmp_path), RUN._replace(same=RUN.same | {"seed": 3}), resume=True, overwrite=False)
    wider = RUN._replace(same=RUN.same | {"hidden_size": 32})
    with pytest.raises(ValueError, match="hidden_size: 64 there, 32 here"):
        claim_run_folder(str(tmp_path), wider, resume=True, overwrite=False)


def test_overwrites_only_runs(tmp_path):
    claim_run_folder(str(tmp_path / "run"), RUN, resume=None, overwrite=False)
    checkpoint(tmp_path / "run", 5)
    claim_run_folder(str(tmp_path / "run"), RUN, resume=None, overwrite=True)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="holds other files"):
        claim_run_folder(str(tmp_path), RUN, resume=None, overwrite=True)
    assert (tmp_path / "thesis.tex").exists()
