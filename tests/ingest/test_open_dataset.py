import os

import pytest

from hf_seqrec.ingest.build import build_dataset
from hf_seqrec.ingest.open_dataset import resolve_dataset

LOG = "user,item,ts\na,x,1\na,y,2\na,z,3\nb,x,1\nb,y,2\n"


@pytest.fixture
def log(write_log):
    return write_log("log.csv", LOG)


def test_synthetic_is_built_once(tmp_path):
    sequences = resolve_dataset("synthetic", tmp_path)
    catalog = tmp_path / "dataset" / "catalog.parquet"
    before = catalog.stat().st_mtime_ns
    assert resolve_dataset("synthetic", tmp_path, items=None).statistics == sequences.statistics
    assert catalog.stat().st_mtime_ns == before


def test_a_log_is_built_again_only_when_something_changes(tmp_path, log):
    def build(**options):
        sequences = resolve_dataset(log, tmp_path / "run", **options)
        return str(sequences), (tmp_path / "run" / "dataset" / "catalog.parquet").stat().st_mtime_ns

    first = build()
    assert first[0] == "2 users / 3 items / 5 interactions"
    assert build(min_user_events=None) == first
    filtered = build(min_user_events=3)
    assert filtered[0] == "1 users / 3 items / 3 interactions"
    log.write_text(LOG + "b,x,3\n")
    os.utime(log)
    assert build(min_user_events=3)[0] == "2 users / 3 items / 6 interactions"


def test_a_dataset_folder(tmp_path, log):
    folder = build_dataset(log, tmp_path / "data")
    assert str(resolve_dataset(folder, tmp_path / "run")) == "2 users / 3 items / 5 interactions"
    assert not (tmp_path / "run").exists()


def test_options_for_what_is_built_already(tmp_path, log):
    folder = build_dataset(log, tmp_path / "data")
    for name in (folder, "synthetic"):
        with pytest.raises(ValueError, match="`items`, `repeats` must be left out"):
            resolve_dataset(name, tmp_path / "run", items="x.item", repeats="first")


def test_nothing_of_the_kind(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"there is none at no/log\.csv"):
        resolve_dataset("no/log.csv", tmp_path)
    with pytest.raises(FileNotFoundError, match=r'must be "synthetic", a dataset folder.*\'org/none\''):
        resolve_dataset("org/none", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="must be a dataset folder"):
        resolve_dataset(tmp_path / "empty", tmp_path)
