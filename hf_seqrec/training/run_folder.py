"""The output folder of a run: who may write into it, and where a killed run goes on from."""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

# Trainer writes it last (see `SeqRecTrainer._save_rng_state`), so a checkpoint without it was cut short.
LAST_FILE = "trainer_state.json"
# What else a run goes on from. A process that is killed leaves all of it where the last file is, a machine that loses
# its power need not.
_FILES = ("model*.safetensors", "optimizer.pt", "scheduler.pt", "rng_state*.pth")
# And where there are any, see `ShardedItemTable.optimizer_file`.
_OF_SHARDS = "optimizer_shard_*.pt"
# Written first: what the folder's run trains.
_RUN_FILE = "run.json"


def claim_run_folder(output_dir: str, what_is_trained: dict[str, Any], resumes: bool, overwrite: bool) -> None:
    r"""
    Make sure that a run may write into its folder, and note there what it trains. For one process of a run to call.

    Args:
        output_dir (`str`): The run's folder.
        what_is_trained (`dict[str, Any]`): Model, network and data of this run, which a resumed run must share.
        resumes (`bool`): Whether this run goes on with what is there.
        overwrite (`bool`): Delete what is there and start again.

    Raises:
        ValueError: if the folder holds another run, or something that is no run.
    """
    folder = Path(output_dir)
    if folder.exists() and any(folder.iterdir()):
        earlier = _read_json(folder / _RUN_FILE)
        if earlier is None:
            raise ValueError(
                f"`output_dir` must be new, empty or an earlier run's folder, but {folder} holds other files. "
                "Choose another `--output_dir`."
            )
        if overwrite:
            shutil.rmtree(folder)
        elif not resumes:
            raise ValueError(
                f"`output_dir` {folder} holds an earlier run ({earlier.get('model_type')} on "
                f"{earlier.get('dataset')}). Go on with `--resume_from_checkpoint true`, start again with "
                "`--overwrite_output_dir true`, or choose another `--output_dir`."
            )
        elif earlier != what_is_trained:
            raise ValueError(
                f"`output_dir` {folder} holds another run, which cannot be resumed as this one "
                f"({_differences(earlier, what_is_trained)}). Choose another `--output_dir`."
            )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _RUN_FILE).write_text(json.dumps(what_is_trained, indent=2, sort_keys=True), encoding="utf-8")


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
    if _read_json(checkpoint / LAST_FILE) is None:
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


def _read_json(path: Path) -> dict[str, Any] | None:
    """Return the content of a JSON file, or `None` where it is missing or cut short."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None


def _differences(earlier: dict[str, Any], now: dict[str, Any]) -> str:
    names = sorted(name for name in earlier.keys() | now.keys() if earlier.get(name) != now.get(name))
    return ", ".join(f"{name}: {earlier.get(name)!r} there, {now.get(name)!r} here" for name in names)
