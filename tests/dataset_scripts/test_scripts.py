"""The scripts are commands at the addresses that they have in a clone."""

import subprocess
import sys
from pathlib import Path

import pytest

from hf_seqrec.data.sequences import load_sequences

FOLDER = Path(__file__).parents[2] / "dataset_scripts"
COMMANDS = {
    "amazon": "build amazon",
    "extend": "extend",
    "interactions": "build",
    "kuairand": "build kuairand",
    "lfm_1b": "build lfm-1b",
    "ml_1m": "build ml-1m",
    "synthetic": "build synthetic",
}


def run(script, *arguments):
    return subprocess.run([sys.executable, FOLDER / f"{script}.py", *arguments], capture_output=True, text=True)


def test_there_are_no_others():
    assert {path.stem for path in FOLDER.glob("*.py")} == COMMANDS.keys()


@pytest.mark.parametrize("script", COMMANDS)
def test_help(script):
    done = run(script, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: hf-seqrec {COMMANDS[script]} ")
    assert f"hf-seqrec {COMMANDS[script]}" in done.stdout.split("\n\n", 1)[1]


def test_a_log_and_a_mistake(tmp_path, write_log):
    log = write_log("log.csv", "user,item,ts\na,x,1\na,y,2\n")
    done = run("interactions", "--raw", log, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert load_sequences(tmp_path / "out").n_users == 1
    done = run("interactions", "--raw", tmp_path / "none.csv", "--output", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith("error: `raw` must be")
