"""How a run on a CPU uses its processors and its memory."""

import ctypes
import os
import sys

import torch

# Set by `accelerate launch` and by `torchrun`, which both set OMP_NUM_THREADS=1 unless they were told a number.
_LAUNCHERS = ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID")
# Parameters of glibc's `mallopt`.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3


def use_processors(cpu_threads: int | None, n_processes: int) -> int:
    r"""
    Set the number of torch's threads, and return it.

    Args:
        cpu_threads (`int`, *optional*): How many. By default what OMP_NUM_THREADS says; where a launcher left it at 1,
            the processors that this process may use, divided among the processes of the run.
        n_processes (`int`): Processes of the run on this machine.
    """
    left_at_one = os.environ.get("OMP_NUM_THREADS") == "1" and any(name in os.environ for name in _LAUNCHERS)
    if cpu_threads is None and left_at_one:
        affinity = getattr(os, "sched_getaffinity", None)
        processors = len(affinity(0)) if affinity else os.cpu_count() or 1
        cpu_threads = max(1, processors // n_processes)
    if cpu_threads is not None:
        torch.set_num_threads(cpu_threads)
    return torch.get_num_threads()


def keep_freed_memory() -> bool:
    r"""
    Have the C library keep the memory that tensors leave, for those of the next step; return whether it does.

    It would give large blocks back to the system, which fills them with zeros when they are asked for again: a tenth
    of a training step in bfloat16. Nothing is changed where it is not glibc, or where the environment has a say
    (`MALLOC_TRIM_THRESHOLD_` and its like).
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    # The highest that they take.
    return bool(mallopt(_MMAP_THRESHOLD, 2**25) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
