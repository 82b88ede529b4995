import json

import pytest

from hf_seqrec.run_folder import newest_complete_checkpoint, prepare_run_folder

RUN = {"model_type": "mamba4rec", "dataset": "synthetic", "hidden_size": 64}


def checkpoint(folder, step, state='{"global_step": 1}'):
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    if state is not None:
        (path / "trainer_state.json").write_text(state)
    return str(path)


def test_starts_in_a_new_folder(tmp_path):
    assert prepare_run_folder(str(tmp_path / "a/b"), RUN, resume=None, overwrite=False) is None
    assert json.loads((tmp_path / "a/b/run.json").read_text()) == RUN


def test_resumes_from_the_newest_checkpoint_that_was_written_to_its_end(tmp_path):
    prepare_run_folder(str(tmp_path), RUN, resume="true", overwrite=False)
    assert newest_complete_checkpoint(tmp_path) is None
    checkpoint(tmp_path, 90)
    newest = checkpoint(tmp_path, 120)
    checkpoint(tmp_path, 1000, state=None)
    checkpoint(tmp_path, 1100, state='{"global_st')
    assert prepare_run_folder(str(tmp_path), RUN, resume="true", overwrite=False) == newest


def test_resumes_from_a_named_checkpoint(tmp_path):
    prepare_run_folder(str(tmp_path), RUN, resume=None, overwrite=False)
    named = checkpoint(tmp_path, 90)
    checkpoint(tmp_path, 120)
    assert prepare_run_folder(str(tmp_path), RUN, resume=named, overwrite=False) == named
    cut_short = checkpoint(tmp_path, 200, state=None)
    with pytest.raises(ValueError, match=r"checkpoint-200 has no readable trainer_state\.json"):
        prepare_run_folder(str(tmp_path), RUN, resume=cut_short, overwrite=False)


def test_refuses_an_earlier_run(tmp_path):
    prepare_run_folder(str(tmp_path), RUN, resume=None, overwrite=False)
    with pytest.raises(ValueError, match=r"holds an earlier run \(mamba4rec on synthetic\).*--resume_from_checkpoint"):
        prepare_run_folder(str(tmp_path), RUN, resume=None, overwrite=False)


def test_refuses_to_resume_another_run(tmp_path):
    prepare_run_folder(str(tmp_path), RUN, resume=None, overwrite=False)
    with pytest.raises(ValueError, match=r"another run.*hidden_size: 64 there, 32 here"):
        prepare_run_folder(str(tmp_path), RUN | {"hidden_size": 32}, resume="true", overwrite=False)


def test_overwrites_only_runs(tmp_path):
    prepare_run_folder(str(tmp_path / "run"), RUN, resume=None, overwrite=False)
    checkpoint(tmp_path / "run", 5)
    assert prepare_run_folder(str(tmp_path / "run"), RUN, resume=None, overwrite=True) is None
    assert newest_complete_checkpoint(tmp_path / "run") is None
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="holds other files"):
        prepare_run_folder(str(tmp_path), RUN, resume=None, overwrite=True)
    assert (tmp_path / "thesis.tex").exists()
