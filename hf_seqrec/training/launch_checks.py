"""What the processes of a run, its ranks, have to agree on before they can train together."""

import os
from typing import Any

from accelerate.utils import gather_object


def check_launcher(n_processes: int) -> None:
    r"""
    Raise where `accelerate launch` was asked for several processes and started one.

    That is what it does without accelerators, and on a machine with a single one: `--num_processes 2` is then for MPI
    alone, and the run would quietly train with half the batch that was meant.

    Args:
        n_processes (`int`): Processes of the run.

    Raises:
        ValueError: if there are fewer processes than were asked for.
    """
    # `accelerate launch` sets the second only where it was asked for more than one; a launcher that does start several
    # sets WORLD_SIZE, or is MPI, and then there are several.
    asked = {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= os.environ.keys()
    if n_processes == 1 and asked and "WORLD_SIZE" not in os.environ:
        raise ValueError(
            "`--num_processes` of `accelerate launch` must be at least 2 processes' (MASTER_ADDR is set), but it has "
            "started one. Without several accelerators, launch with `torchrun --standalone --nproc_per_node 2 ...` or "
            "with `accelerate launch --config_file trainer/accelerate/two_cpu_processes.yaml ...`; for one process "
            "leave out `--num_processes`, and unset MASTER_ADDR where it was set before."
        )


def check_ranks_agree(found: dict[str, Any]) -> None:
    r"""
    Raise, on every rank, where the ranks did not find the same. For all of them to call, with the same names.

    Ranks whose data differ make different numbers of steps, and wait for each other forever.

    Args:
        found (`dict[str, Any]`): What must be equal, by name; small, and printable.

    Raises:
        ValueError: if something differs; the message says what, and on which rank.
    """
    answers = gather_object([found])
    differing = [name for name in found if any(answer[name] != answers[0][name] for answer in answers)]
    if differing:
        other = next(rank for rank, answer in enumerate(answers) if answer != answers[0])
        of_two = "; ".join(
            f"rank {rank}: " + ", ".join(f"{name} {answers[rank][name]}" for name in differing) for rank in (0, other)
        )
        raise ValueError(
            f"The {len(answers)} processes must train on the same data, but found {of_two}. Give each of them the "
            "same `--dataset`, with the same files on every machine, and the same `--output_dir`."
        )
