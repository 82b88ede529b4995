import os

import pytest

from hf_seqrec.replacing_folder import replacing_folder

# What happens where a process is killed or another one writes is in tests/ingest/test_dataset_folder.py.


def test_the_folder_appears_when_the_block_ends(tmp_path):
    output = tmp_path / "deep/out"
    with replacing_folder(output) as folder:
        (folder / "inside").mkdir()
        (folder / "inside/file").write_text("new")
        assert not output.exists()
    assert (output / "inside/file").read_text() == "new"
    assert os.listdir(output.parent) == ["out"]
    mask = os.umask(0)
    os.umask(mask)
    assert output.stat().st_mode & 0o777 == 0o777 & ~mask


def test_nothing_appears_where_the_block_fails(tmp_path):
    def fail():
        with replacing_folder(tmp_path / "out") as folder:
            (folder / "file").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert os.listdir(tmp_path) == []


def test_only_an_empty_folder_is_replaced_by_default(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    with replacing_folder(output) as folder:
        (folder / "file").write_text("first")
    with pytest.raises(FileExistsError, match="`output` must be new or an empty folder"), replacing_folder(output):
        pass
    assert (output / "file").read_text() == "first"


def test_what_is_written_there_meanwhile_stays(tmp_path):
    output = tmp_path / "out"

    def write():
        with replacing_folder(output) as folder:
            (folder / "file").write_text("ours")
            output.mkdir()
            (output / "file").write_text("theirs")

    with pytest.raises(FileExistsError, match="there is something at"):
        write()
    assert (output / "file").read_text() == "theirs"
    assert os.listdir(tmp_path) == ["out"]


def test_what_the_check_allows_is_replaced_whole(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "old").write_text("old")
    with replacing_folder(output, check=lambda folder: None) as folder:
        (folder / "new").write_text("new")
        assert (output / "old").exists()
    assert os.listdir(output) == ["new"]
    assert os.listdir(tmp_path) == ["out"]
