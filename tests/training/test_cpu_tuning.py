import os
import platform
import subprocess
import sys

import pytest
import torch

from hf_seqrec.training.cpu_tuning import use_processors


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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_freed_memory_is_kept_unless_the_environment_has_a_say():
    def kept(**variables):
        # In a process of its own: this one goes on as it is.
        code = "from hf_seqrec.training.cpu_tuning import keep_freed_memory; print(keep_freed_memory())"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | variables
        return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout

    assert kept().strip() == b"True"
    assert kept(MALLOC_TRIM_THRESHOLD_="131072").strip() == b"False"
