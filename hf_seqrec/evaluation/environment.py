"""What results depend on besides data and arguments: versions, the commit, the machine."""

import importlib.metadata
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from .results import Hardware, without_folders

_HIDDEN = "<token>"
# Of a checkout; of an installed package the folder of all packages.
_CHECKOUT = Path(__file__).resolve().parents[2]
_PACKAGES = ("hf-seqrec", "torch", "transformers", "accelerate", "numba", "triton")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that results depend on."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def own_command() -> str:
    """Return the command that this process runs, as it is typed, without the tokens in it."""
    program = Path(sys.argv[0])
    # `python -m hf_seqrec`, also behind a launcher, is the same command.
    is_ours = program.name == "hf-seqrec" or program.parts[-2:] == ("hf_seqrec", "__main__.py")
    return command(["hf-seqrec", *sys.argv[1:]] if is_ours else [Path(sys.executable).name, *sys.argv])


def command(words: Sequence[str]) -> str:
    """
    Return a command as it is typed, for files that are shared: without the tokens in it, nor folders of the machine.

    Of an absolute path its last part stays, or that from the root of the checkout on.
    """
    shown, is_token = [], False
    for word in words:
        option, equals, value = word.partition("=")
        if is_token:
            shown.append(_HIDDEN)
        elif option.startswith("--") and equals:
            shown.append(f"{option}={_HIDDEN if option.endswith('_token') else _without_folders(value)}")
        else:
            shown.append(_without_folders(word))
        is_token = word.startswith("--") and word.endswith("_token")
    return re.sub(r"\bhf_\w{20,}", _HIDDEN, shlex.join(shown))


def _without_folders(word: str) -> str:
    path = Path(word)
    if path.is_absolute() and path.is_relative_to(_CHECKOUT):
        return path.relative_to(_CHECKOUT).as_posix()
    return without_folders(word)


def commit(file: str | Path = __file__) -> str | None:
    """Return the commit that a file is checked out at, and `-dirty` after changes; `None` where it is not tracked."""
    git = shutil.which("git")
    if git is None:
        return None
    in_folder = [git, "-C", str(Path(file).parent)]
    # An installed package may lie in somebody else's checkout, which does not track it.
    tracked = subprocess.run([*in_folder, "ls-files", "--error-unmatch", str(file)], capture_output=True, check=False)
    if tracked.returncode:
        return None
    describe = [*in_folder, "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty"]
    return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()


def hardware(device: torch.device, processes: int = 1) -> Hardware:
    """Say on what a run or an evaluation ran, and how much memory its main process had."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "device": device.type,
        "name": name,
        "threads": torch.get_num_threads(),
        "processes": processes,
        **_peak_memory(device),
    }


def _peak_memory(device: torch.device) -> Hardware:
    """Return the most bytes that this process had, on CUDA those of its tensors; nothing where nobody counts them."""
    memory: Any = {}
    if device.type == "cuda":
        memory["peak_memory_bytes"] = torch.cuda.max_memory_allocated(device)
        memory["peak_reserved_bytes"] = torch.cuda.max_memory_reserved(device)
        memory["memory_kind"] = "allocated on the device, and reserved by torch"
    elif sys.platform != "win32":
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        memory["peak_memory_bytes"] = peak if sys.platform == "darwin" else peak * 1024
        memory["memory_kind"] = "resident set"
    return memory
