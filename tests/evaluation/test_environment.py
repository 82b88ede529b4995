import subprocess

import torch

from hf_seqrec.evaluation.environment import command, commit, hardware, versions


def test_the_commit_of_a_tracked_file(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    tracked, other = tmp_path / "tracked.py", tmp_path / "other.py"
    for file in (tracked, other):
        file.write_text("")
    assert commit(tracked) is None
    git("init")
    git("add", "tracked.py")
    git("commit", "-m", "first")
    git("tag", "-a", "v1", "-m", "a name is no commit")
    head = git("rev-parse", "HEAD")
    assert commit(tracked) == head[:12]
    assert commit(other) is None
    tracked.write_text("changed")
    assert commit(tracked) == f"{head[:12]}-dirty"


def test_the_machine_and_what_is_installed():
    block = torch.ones(2**22)
    assert hardware(torch.device("cpu"))["peak_memory_bytes"] > block.nbytes
    assert versions()["torch"] == torch.__version__.split("+")[0] or versions()["torch"] == torch.__version__


def test_no_token_stays_in_a_command():
    words = ["run.py", "--hub_token", "secret", "--hub_token=secret", "--dataset", "my log", "--x", "hf_" + "a" * 30]
    assert command(words) == ("run.py --hub_token '<token>' '--hub_token=<token>' --dataset 'my log' --x <token>")
