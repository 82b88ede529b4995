import importlib
import sys

import pytest

from hf_seqrec.data.sequences import load_sequences


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a script as from a shell, with `--output out`, and return what it printed."""

    def run(script, *arguments):
        argv = [f"dataset_scripts/{script}.py", "--output", str(tmp_path / "out"), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", argv)
        importlib.import_module(f"dataset_scripts.{script}").main()
        return capsys.readouterr().out

    return run


@pytest.fixture
def histories(tmp_path):
    """Give what a script built: each user's item ids, oldest first."""

    def histories():
        sequences = load_sequences(tmp_path / "out")
        return {
            str(user): [str(item) for item in sequences.catalog.decode(sequences.history(position))]
            for position, user in enumerate(sequences.user_ids)
        }

    return histories
