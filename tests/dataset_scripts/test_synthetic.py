import subprocess
import sys
from pathlib import Path

from hf_seqrec.data.sequences import load_sequences

SCRIPT = Path(__file__).parents[2] / "dataset_scripts" / "synthetic.py"


def test_a_folder_and_its_best(tmp_path):
    command = [
        sys.executable,
        SCRIPT,
        "--output",
        tmp_path / "out",
        "--n_users",
        "100",
        "--n_items",
        "200",
        "--seed",
        "3",
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    sequences = load_sequences(tmp_path / "out")
    assert sequences.n_users == 100
    assert sequences.statistics["source"]["seed"] == 3
    assert f"best reachable {sequences.statistics['reachable']['hr@10']:.4f}" in done.stdout
