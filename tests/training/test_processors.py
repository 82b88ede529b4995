import os
import platform
import subprocess
import sys

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


# Eight blocks of 16 MiB that live for a moment, in a process of its own: how many pages had to be fetched for them.
_BLOCKS = """
import resource, sys, torch
from hf_seqrec.training.processors import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
blocks = [torch.ones(2**22) for _ in range(8)]
del blocks
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    blocks = [torch.ones(2**22) for _ in range(8)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_memory_is_used_again():
    def pages(way, **variables):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")} | variables
        command = [sys.executable, "-c", _BLOCKS, way]
        return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)

    given_back = pages("leave")
    assert given_back > 0
    assert pages("keep") < given_back / 4
    # Who has said otherwise is not overruled.
    assert pages("keep", MALLOC_TRIM_THRESHOLD_="131072") > given_back / 2
