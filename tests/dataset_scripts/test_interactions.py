import subprocess
import sys
from pathlib import Path

from hf_seqrec.data.sequences import load_sequences

SCRIPT = Path(__file__).parents[2] / "dataset_scripts" / "interactions.py"


def run(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True)


def test_a_log_with_options(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("who,what,ts\na,x,1\na,y,2\na,x,3\nb,x,1\nc,x,1\nc,y,2\nc,z,3\n")
    (tmp_path / "films.csv").write_text("item,film\nx,Xanadu\ny,Yentl\n")
    options = ["--user_column", "who", "--item_column", "what", "--min_item_events", 2, "--min_user_events", 2]
    items = ["--items", tmp_path / "films.csv", "--title_column", "film"]
    done = run("--raw", log, "--output", tmp_path / "out", *options, *items)
    assert done.returncode == 0, done.stderr
    assert "2 users / 2 items / 5 interactions" in done.stdout
    assert "1 users have fewer than three events: kept for training, not evaluated." in done.stdout
    assert load_sequences(tmp_path / "out").catalog.titles == ["Xanadu", "Yentl"]


def test_bad_input(tmp_path):
    log = tmp_path / "log.csv"
    log.write_text("user,item,ts\na,x,1\na,y,soon\n")
    done = run("--raw", log, "--output", tmp_path / "out")
    assert done.returncode != 0
    assert "log.csv, line 3: `ts` must be an integer (Unix seconds), got 'soon'." in done.stderr
    assert not (tmp_path / "out").exists()
