import subprocess
import sys
from pathlib import Path

from hf_seqrec.data.sequences import load_sequences
from hf_seqrec.ingest.build import build_dataset

SCRIPT = Path(__file__).parents[2] / "dataset_scripts" / "extend.py"


def test_yesterday(tmp_path):
    (tmp_path / "old.csv").write_text("user,item,ts\na,x,1\na,y,2\n")
    (tmp_path / "new.csv").write_text("user,item,ts\na,y,2\na,z,3\nb,x,3\n")
    folder = build_dataset(tmp_path / "old.csv", tmp_path / "data")
    command = [sys.executable, SCRIPT, "--raw", tmp_path / "new.csv", "--output", folder]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "added new.csv (1 events were there already): 2 users / 3 items / 4 interactions" in done.stdout
    assert load_sequences(folder).catalog.item_ids.to_pylist() == ["x", "y", "z"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "nothing new: 3 of its events are there already" in done.stderr
