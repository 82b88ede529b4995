import os

import pytest

from hf_seqrec.data.dataset_folder import replacing_folder


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
    with replacing_folder(output) as folder:
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
        with replacing_folder(output) as folder:
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
        with pytest.raises(FileExistsError, match=message), replacing_folder(tmp_path / name):
            pass
    assert names(tmp_path) == ["file", "project", "run"]
