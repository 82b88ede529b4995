"""The output folder of a run: who may write into it, and where a killed run goes on from."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from .run_record import RunIdentity, differences, read_json, read_run, write_run

# Trainer writes it last (see `SeqRecTrainer._save_rng_state`), so a checkpoint without it was cut short.
LAST_FILE = "trainer_state.json"
# What else a run goes on from. A process that is killed leaves all of it where the last file is, a machine that loses
# its power need not.
_FILES = ("model*.safetensors", "optimizer.pt", "scheduler.pt", "rng_state*.pth")
# And where there are any, see `ShardedItemTable.optimizer_file`.
_OF_SHARDS = "optimizer_shard_*.pt"


def claim_run_folder(output_dir: str, identity: RunIdentity, resume: str | bool | None, overwrite: bool) -> None:
    r"""
    Make sure that a run may write into its folder, and record there what it trains. For one process of a run to call.

    Args:
        output_dir (`str`): The run's folder.
        identity ([`RunIdentity`]): What this run trains.
        resume (`str`, `bool` or `None`): `--resume_from_checkpoint`.
        overwrite (`bool`): Delete what is there and start again.

    Raises:
        ValueError: if the folder holds another run, or something that is no run, or what is resumed was trained with
            other arguments.
    """
    folder = Path(output_dir)
    earlier = None
    if folder.exists() and any(folder.iterdir()):
        earlier = read_run(folder)
        if earlier is None:
            raise ValueError(
                f"`output_dir` must be new, empty or an earlier run's folder, but {folder} holds other files. "
                "Choose another `--output_dir`."
            )
        if overwrite:
            shutil.rmtree(folder)
            earlier = None
        elif not wants_resume(resume):
            dataset = earlier["recorded"].get("dataset", earlier["same"].get("dataset"))
            raise ValueError(
                f"`output_dir` {folder} holds an earlier run ({earlier['same'].get('model_type')} on {dataset}). "
                "Go on with `--resume_from_checkpoint true`, start again with `--overwrite_output_dir true`, or "
                "choose another `--output_dir`."
            )
    checkpoint = checkpoint_to_resume(output_dir, resume)
    resumed = None if checkpoint is None else read_run(Path(checkpoint).parent)
    for run in (earlier, resumed):
        if run is not None:
            _check_same_run(run["same"], identity.same, checkpoint or output_dir)
    record = {"same": identity.same, "recorded": identity.recorded, "changes": []}
    if checkpoint is not None and resumed is not None:
        changed = differences(resumed["recorded"], identity.recorded)
        entries = [{"resumed_from": Path(checkpoint).name} | changed] if changed else []
        record["changes"] = resumed["changes"] + entries
        # The data that are loaded will be compared with these.
        record["data"] = resumed.get("data", {})
    folder.mkdir(parents=True, exist_ok=True)
    write_run(folder, record)


def _check_same_run(earlier: dict[str, Any], now: dict[str, Any], place: str) -> None:
    """Refuse to go on with other arguments, where that would train something else."""
    differing = differences(earlier, now)
    if differing:
        shown = ", ".join(f"{name}: {before!r} there, {after!r} here" for name, (before, after) in differing.items())
        raise ValueError(
            f"`resume_from_checkpoint` must come with the arguments of the run that it goes on with, but {place} is "
            f"of another run ({shown}). Give the same arguments, or start in another `--output_dir`, with "
            "`--model_name_or_path` to train these weights on."
        )


def wants_resume(resume: str | bool | None) -> bool:
    """Tell whether `--resume_from_checkpoint` asks to go on; the command line brings booleans as text."""
    return str(resume).lower() not in ("none", "false", "0", "no", "")


def checkpoint_to_resume(output_dir: str, resume: str | bool | None) -> str | None:
    r"""
    Return the checkpoint to go on from, or `None` to start; the same in every process.

    Args:
        output_dir (`str`): The run's folder.
        resume (`str`, `bool` or `None`): `--resume_from_checkpoint`: a checkpoint folder, or true for the newest
            complete one of `output_dir`. A run killed before its first checkpoint starts again.

    Raises:
        ValueError: if the checkpoint named is not complete.
    """
    if not wants_resume(resume):
        return None
    if str(resume).lower() in ("true", "1", "yes"):
        return newest_complete_checkpoint(Path(output_dir))
    missing = missing_from_checkpoint(Path(str(resume)))
    if missing is not None:
        raise ValueError(
            f"`resume_from_checkpoint` must be a complete checkpoint, but {resume} has no readable {missing}. "
            "Pass `--resume_from_checkpoint true` for the newest complete one of the output folder."
        )
    return str(resume)


def newest_complete_checkpoint(folder: Path) -> str | None:
    """Return the checkpoint of the highest step that was written to its end, or `None`."""
    checkpoints = sorted(folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=lambda path: int(path.name.rsplit("-", 1)[1]))
    return next((str(path) for path in reversed(checkpoints) if missing_from_checkpoint(path) is None), None)


def missing_from_checkpoint(checkpoint: Path) -> str | None:
    """Return the first file that a run could not go on from, because it is missing or cut short; `None`: complete."""
    if read_json(checkpoint / LAST_FILE) is None:
        return LAST_FILE
    for pattern in (*_FILES, _OF_SHARDS):
        found = sorted(checkpoint.glob(pattern))
        if not found and pattern != _OF_SHARDS:
            return pattern.replace("*", "")
        for path in found:
            if not (_is_whole_safetensors(path) if path.suffix == ".safetensors" else zipfile.is_zipfile(path)):
                return path.name
    return None


def _is_whole_safetensors(path: Path) -> bool:
    """Tell whether a file is as long as it says: 8 bytes with the length of its header, that in JSON, tensors."""
    with path.open("rb") as file:
        beginning = file.read(8)
        length = int.from_bytes(beginning, "little")
        size = path.stat().st_size
        if len(beginning) < 8 or 8 + length > size:
            return False
        tensors = json.loads(file.read(length))
    ends = [tensor["data_offsets"][1] for name, tensor in tensors.items() if name != "__metadata__"]
    return 8 + length + max(ends, default=0) == size
