import os

import pytest
import torch

from hf_seqrec.training.processors import use_processors


@pytest.fixture(autouse=True)
def _threads(monkeypatch):
    before = torch.get_num_threads()
    for name in ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(6)), raising=False)
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("launcher", ["ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"])
def test_a_launcher_that_left_one_thread_is_overruled(monkeypatch, launcher):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv(launcher, "x")
    assert use_processors(None, n_processes=1) == torch.get_num_threads() == 6
    assert use_processors(None, n_processes=4) == 1
    assert use_processors(2, n_processes=1) == 2


def test_the_users_own_number_counts(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert use_processors(None, n_processes=1) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    torch.set_num_threads(3)
    assert use_processors(None, n_processes=1) == 3
