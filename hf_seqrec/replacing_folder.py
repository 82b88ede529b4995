"""A folder that appears whole or not at all: written beside its place, and given its name when it is complete."""

import glob
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


def check_new(output: Path) -> None:
    """Raise a `FileExistsError` where there is anything but an empty folder."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise FileExistsError(
            f"`output` must be new or an empty folder, but there is something at {output}. Choose another `output`."
        )


@contextmanager
def replacing_folder(output: str | Path, check: Callable[[Path], None] = check_new) -> Iterator[Path]:
    r"""
    Yield a temporary folder beside `output` that takes its place when the block ends well, and is removed when not.

    So what fails or is killed leaves nothing half-written, and an earlier folder stays as it was. What a killed
    process left beside `output` is removed by the next.

    Args:
        output (`str`): The folder.
        check (`Callable[[Path], None]`, *optional*): Raises a `FileExistsError` where there is something that may not
            be replaced; by default everything but an empty folder. Called before the block, and again after it.

    Raises:
        FileExistsError: if `check` does, or another process is writing there.
    """
    output = Path(output).resolve()
    check(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    with _alone(output):
        _clean_up(output)
        temporary = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".tmp", dir=output.parent))
        try:
            # `mkdtemp` makes it private to the user; a folder that stays gets the usual rights.
            temporary.chmod(0o777 & ~_umask())
            yield temporary
            check(output)
            _to_the_disk(temporary)
            if output.exists():
                old = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".old", dir=output.parent))
                output.rename(old / output.name)
                temporary.rename(output)
                shutil.rmtree(old)
            else:
                temporary.rename(output)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def _alone(output: Path) -> Iterator[None]:
    """Refuse to write where another process does. The system lets go of the lock when a process dies."""
    lock_file = output.parent / f".{output.name}.lock"
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise FileExistsError(
            f"`output` is being written by another process: {output}. Wait for it, or choose another folder."
        ) from error
    try:
        yield
    finally:
        lock_file.unlink(missing_ok=True)
        lock.release()


def _clean_up(output: Path) -> None:
    """Remove what a killed process left; if it died between its two renames, put the earlier folder back."""
    for left in output.parent.glob(f".{glob.escape(output.name)}.*"):
        if left.suffix == ".old":
            if not output.exists() and (left / output.name).exists():
                (left / output.name).rename(output)
            shutil.rmtree(left)
        elif left.suffix == ".tmp":
            shutil.rmtree(left)


def _to_the_disk(folder: Path) -> None:
    """Wait until all files are on the disk, so that a power cut after the rename does not leave empty ones."""
    if os.name != "posix":
        return  # elsewhere a folder cannot be opened, and a file not for reading alone
    for path in (*folder.rglob("*"), folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
