"""How many processors a run on a CPU uses."""

import os

import torch

# Set by `accelerate launch` and by `torchrun`, which both set OMP_NUM_THREADS=1 unless they were told a number.
_LAUNCHERS = ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID")


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
