import pytest

from hf_seqrec.cli.build import main
from hf_seqrec.data.sequences import load_sequences


@pytest.fixture
def run(tmp_path, capsys):
    """Build a dataset as from a shell, with `--output out`, and return what was printed."""

    def run(name, *arguments):
        main([name, "--output", str(tmp_path / "out"), *map(str, arguments)])
        return capsys.readouterr().out

    return run


@pytest.fixture
def histories(tmp_path):
    """Give what was built: each user's item ids, oldest first."""

    def histories():
        sequences = load_sequences(tmp_path / "out")
        return {
            str(user): [str(item) for item in sequences.catalog.decode(sequences.history(position))]
            for position, user in enumerate(sequences.user_ids)
        }

    return histories
