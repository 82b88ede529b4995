import json
import re
from pathlib import Path

import pytest
import torch

from hf_seqrec.evaluation.environment import command, hardware
from hf_seqrec.evaluation.results import (
    check_results,
    dataset_name,
    read_results,
    without_folders,
    write_results,
)
from tests.checkpoints.test_card import RESULTS

CARDS = sorted((Path(__file__).parents[2] / "model_cards").glob("*/*.json"))
# A path from the root, and not one inside of an address or of a relative path.
FROM_THE_ROOT = re.compile(r"(?<![\w.:/~<-])/\w|[A-Z]:\\")


def texts_in(value):
    if isinstance(value, dict):
        return [text for inner in value.values() for text in texts_in(inner)]
    if isinstance(value, list):
        return [text for inner in value for text in texts_in(inner)]
    return [value] if isinstance(value, str) else []


def test_there_are_cards():
    assert len(CARDS) >= 15


@pytest.mark.parametrize("path", CARDS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_cards_are_made_from_is_results_without_folders_of_a_machine(path):
    results = read_results(path)
    assert not [text for text in texts_in(results) if FROM_THE_ROOT.search(text)]
    assert not FROM_THE_ROOT.search(path.with_suffix(".md").read_text(encoding="utf-8"))


def test_what_is_written_comes_back(tmp_path):
    path = write_results(tmp_path / "deep/results.json", RESULTS)
    assert read_results(path) == RESULTS


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"metrics": None}, "metrics is a NoneType"),
        ({"metrics": {"test_hr@10": "high"}}, "metrics is a dict"),
        ({"seed": True}, "seed is a bool"),
        ({"hardware": {"device": "cpu"}}, "hardware is a dict"),
        ({"speed": 3}, "speed is unknown"),
        ({"batch": {"per_device": 1.5}}, "batch is a dict"),
    ],
)
def test_what_is_no_results(tmp_path, changes, mistake):
    with pytest.raises(ValueError, match=f"`results` does not hold results: {mistake}"):
        write_results(tmp_path / "results.json", RESULTS | changes)
    assert not (tmp_path / "results.json").exists()
    (tmp_path / "results.json").write_text(json.dumps(RESULTS | changes))
    with pytest.raises(ValueError, match=rf"results\.json does not hold results: {mistake}"):
        read_results(tmp_path / "results.json")


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_results(tmp_path / "none.json")
    (tmp_path / "half.json").write_text('{"model_type": "sas')
    with pytest.raises(ValueError, match="is not JSON, or cut short"):
        read_results(tmp_path / "half.json")
    with pytest.raises(ValueError, match="does not hold results: a list, no mapping"):
        check_results([], "that")


def test_a_dataset_is_called_by_its_name(tmp_path):
    log = tmp_path / "shop/log.csv"
    log.parent.mkdir()
    log.touch()
    assert dataset_name(str(log)) == "log.csv"
    assert dataset_name(str(log.parent)) == "shop"
    # Not there any more, but of a machine all the same.
    assert dataset_name("/data/shop") == "shop"
    assert dataset_name("org/shop") == "org/shop"
    assert without_folders("runs/ml-1m") == "runs/ml-1m"


def test_a_command_names_no_folder_of_the_machine():
    checkout = Path(__file__).resolve().parents[2]
    words = ["/usr/bin/python", str(checkout / "trainer/run.py"), "--dataset", "/data/ann/log.csv"]
    words += ["--output_dir=/scratch/ann/run", "--config", "trainer/recipes/ml-1m/sasrec.yaml", "--max_length", "50"]
    assert command(words) == (
        "python trainer/run.py --dataset log.csv --output_dir=run --config trainer/recipes/ml-1m/sasrec.yaml "
        "--max_length 50"
    )


def test_the_kind_of_memory_is_said():
    found = hardware(torch.device("cpu"))
    assert found["memory_kind"] == "resident set"
    assert "peak_reserved_bytes" not in found


@pytest.mark.gpu
def test_memory_of_an_accelerator():
    block = torch.ones(2**20, device="cuda")
    found = hardware(block.device)
    assert found["peak_reserved_bytes"] >= found["peak_memory_bytes"] >= block.nbytes
    assert found["memory_kind"] == "allocated on the device, and reserved by torch"
