import errno
import os
import signal
import subprocess
import sys

import pytest

from hf_seqrec.ingest.dataset_folder import replacing_dataset_folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def finish(folder, text="new"):
    (folder / "catalog.parquet").write_text(text)


@pytest.mark.parametrize("before", [None, "empty", "earlier"])
def test_the_folder_appears_at_the_end(tmp_path, before):
    output = tmp_path / "deep" / "out"
    if before:
        output.mkdir(parents=True)
    if before == "earlier":
        finish(output, "old")
        (output / "statistics.json").write_text("{}")
    with replacing_dataset_folder(output) as folder:
        assert folder.parent == output.parent
        finish(folder)
        assert not (output / "catalog.parquet").exists() or (output / "catalog.parquet").read_text() == "old"
    assert names(output) == ["catalog.parquet"]
    assert (output / "catalog.parquet").read_text() == "new"
    assert names(output.parent) == ["out"]
    assert output.stat().st_mode & 0o777 == 0o777 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_failure_leaves_what_was_there(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    finish(output, "old")

    def fail_halfway():
        with replacing_dataset_folder(output) as folder:
            finish(folder)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert names(tmp_path) == ["out"]
    assert (output / "catalog.parquet").read_text() == "old"


def test_something_else_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model.safetensors").write_text("x")
    finish(tmp_path / "run")
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "README.md").write_text("x")
    for name, message in (("file", "is a file"), ("run", "something else: model"), ("project", "else: README")):
        with pytest.raises(FileExistsError, match=message), replacing_dataset_folder(tmp_path / name):
            pass
    assert names(tmp_path) == ["file", "project", "run"]


def test_another_process_is_writing_there(tmp_path):
    output = tmp_path / "out"
    with replacing_dataset_folder(output) as folder:
        finish(folder)
        code = f"""
from hf_seqrec.ingest.dataset_folder import replacing_dataset_folder
try:
    with replacing_dataset_folder({str(output)!r}):
        pass
except FileExistsError as error:
    print(error)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert "is being written by another process" in done.stdout
    assert names(tmp_path) == ["out"]


def test_a_killed_build_leaves_what_was_there(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    finish(output, "old")
    code = f"""
import os, signal
from hf_seqrec.ingest.dataset_folder import replacing_dataset_folder
with replacing_dataset_folder({str(output)!r}) as folder:
    (folder / "catalog.parquet").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert (output / "catalog.parquet").read_text() == "old"
    assert len(names(tmp_path)) == 3
    # The next one finds nobody at work, and cleans up.
    with replacing_dataset_folder(output) as folder:
        finish(folder)
    assert names(tmp_path) == ["out"]
    assert (output / "catalog.parquet").read_text() == "new"


def test_killed_between_the_two_renames(tmp_path):
    (tmp_path / ".out.x.old" / "out").mkdir(parents=True)
    finish(tmp_path / ".out.x.old" / "out", "old")

    def fail():
        with replacing_dataset_folder(tmp_path / "out"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (tmp_path / "out" / "catalog.parquet").read_text() == "old"
    assert names(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("no space left")])
def test_a_full_disk(tmp_path, error):
    output = tmp_path / "out"
    output.mkdir()
    finish(output, "old")

    def fill():
        with replacing_dataset_folder(output) as folder:
            (folder / "part").write_bytes(bytes(20_000_000))
            raise error

    with pytest.raises(OSError, match=r"is full: .* GB are free .* 30 bytes for each event") as raised:
        fill()
    assert raised.value.errno == errno.ENOSPC
    assert names(tmp_path) == ["out"]
    assert (output / "catalog.parquet").read_text() == "old"
