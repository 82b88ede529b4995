"""`trainer/run.py` is `hf-seqrec train`, and recipes have their address beside it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*words, **environment):
    command = [sys.executable, "trainer/run.py", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | environment)


def test_a_recipe_at_its_address(tmp_path):
    words = ["--hidden_size", "0", "--output_dir", str(tmp_path / "run")]
    done = run("--config", "trainer/recipes/ml-1m/mamba4rec.yaml", *words)
    assert done.returncode == 2
    assert "`hidden_size` must be" in done.stderr
    assert done.stderr.startswith("error: ")


def test_help():
    done = run("--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: hf-seqrec train ")
