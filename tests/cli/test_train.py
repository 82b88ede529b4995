"""The main job as a user starts it: from a log to a checkpoint that recommends, killed on the way and resumed."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from transformers import AutoModel

from hf_seqrec.checkpoints.load import load_checkpoint
from hf_seqrec.cli.train import main

SMALL = {"hidden_size": 16, "state_size": 4, "max_length": 10, "per_device_train_batch_size": 8, "num_train_epochs": 3}


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Write 40 users who mostly go from each item to the next, and the items' titles."""
    folder = tmp_path_factory.mktemp("log")
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user in range(40):
        for event in range(6 + user % 9):
            lines.append(f"u{user}\ti{(user + event + event // 4) % 12}\t{1_000_000 + 60 * event}")
    (folder / "shop.inter").write_text("\n".join(lines) + "\n")
    titles = [f"i{item}\tThing {item}" for item in range(12)]
    (folder / "shop.item").write_text("\n".join(["item_id:token\ttitle:token_seq", *titles]) + "\n")
    return str(folder / "shop.inter")


def command(log, output_dir, *arguments):
    small = [text for name, value in SMALL.items() for text in (f"--{name}", str(value))]
    start = [sys.executable, "-m", "hf_seqrec", "train"]
    return [*start, "--dataset", log, "--output_dir", str(output_dir), *small, *arguments]


def run(log, output_dir, *arguments):
    return subprocess.run(command(log, output_dir, *arguments), capture_output=True, text=True, check=False)


def metrics_of(output_dir):
    return json.loads((output_dir / "results.json").read_text())["metrics"]


def test_from_a_log_to_recommendations(log, tmp_path):
    output_dir = tmp_path / "run"
    answer = run(log, output_dir)
    assert answer.returncode == 0, answer.stderr
    assert "40 users / 12 items / 390 interactions" in answer.stdout
    for line in ("popularity", "rules", "this model", "history not excluded", "Recommended:", "Thing "):
        assert line in answer.stdout
    names = {path.name for path in output_dir.iterdir()}
    assert {"config.json", "model.safetensors", "catalog.parquet", "README.md", "results.json", "curves.png"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]

    results = json.loads((output_dir / "results.json").read_text())
    assert f"{results['metrics']['test_ndcg@10']:.4f}" in answer.stdout
    assert f"{results['metrics']['test_ndcg@10']:.4f}" in (output_dir / "README.md").read_text()
    assert results["statistics"]["n_interactions"] == 390
    assert list(results["baselines"]) == ["popularity", "rules"]
    assert f"{results['baselines']['rules']['test_ndcg@10']:.4f}" in answer.stdout
    assert "| popularity | test |" in (output_dir / "README.md").read_text()

    model, catalog = load_checkpoint(output_dir)
    rows, _ = model.recommend(torch.from_numpy(catalog.encode(["i3", "i4"]))[None], top_k=10)
    assert sorted(catalog.describe(rows[0])) == sorted(f"Thing {item}" for item in range(12) if item not in (3, 4))

    assert results["command"].startswith("hf-seqrec train --dataset ")
    assert "--dataset shop.inter " in results["command"]

    for arguments, message in (
        ([], "holds an earlier run"),
        (["--resume_from_checkpoint", "true", "--hidden_size", "8"], "hidden_size: 16 there, 8 here"),
    ):
        again = run(log, output_dir, *arguments)
        assert again.returncode == 2
        assert again.stderr.startswith("error: ")
        assert again.stderr.count("\n") == 1
        assert message in again.stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere.csv", None, "there is none at"),
        ("no-times.csv", "user,item\na,b\n", "Name the right one with `timestamp_column`"),
        ("folder", None, "It has no catalog.parquet"),
    ],
)
def test_a_dataset_that_is_none_leaves_the_output_folder_alone(tmp_path, monkeypatch, name, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        main(["--dataset", str(tmp_path / name), "--output_dir", "run", "--use_cpu"])
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_global_time_cut_is_stated_beside_the_numbers(log, tmp_path):
    # All users begin at 1,000,000 and have 6 to 14 events, one a minute.
    output_dir = tmp_path / "run"
    cut = ["--split", "global_time", "--validation_from", "1000300", "--test_from", "1000420"]
    answer = run(log, output_dir, *cut, "--num_train_epochs", "1", "--window", "sliding")
    assert answer.returncode == 0, answer.stderr
    results = json.loads((output_dir / "results.json").read_text())
    assert results["protocol"].startswith("global time cut (trained on events before timestamp 1000300; targets of")
    # Everybody has events 0 to 4 before the cut and event 5 after it; 30 of the 40 have an event 7.
    assert results["split_counts"]["users trained on"] == 40
    assert results["split_counts"]["users evaluated in validation"] == 40
    assert results["split_counts"]["users evaluated"] == 30
    assert "Test, 30 users" in answer.stdout
    for text in (answer.stdout, (output_dir / "README.md").read_text()):
        assert results["protocol"].split(", full ranking")[0] in text
        assert "cold users (no training event), not evaluated: 0" in text


@pytest.mark.slow
def test_streaming(log, tmp_path):
    output_dir = tmp_path / "run"
    sampled = ["--streaming", "true", "--streaming_eval_users", "25", "--num_train_epochs", "1"]
    answer = run(log, output_dir, *sampled)
    assert answer.returncode == 0, answer.stderr
    results = json.loads((output_dir / "results.json").read_text())
    assert results["protocol"].startswith("leave-one-out")
    assert "evaluated on users drawn at random" in results["protocol"]
    assert results["split_counts"]["users trained on"] == 40
    assert results["split_counts"]["users evaluated"] == 25
    assert results["statistics"]["n_users"] == 40
    assert results["best_step"] == 5
    assert list(results["baselines"]) == ["popularity", "rules"]
    assert "Test, 25 users" in answer.stdout


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(log, tmp_path):
    # The seed of the process, the order of the data, the windows, dropout and the optimizer all have to come back.
    steps = ["--save_strategy", "steps", "--save_steps", "1", "--eval_strategy", "steps", "--eval_steps", "1"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    answer = run(log, whole, *steps)
    assert answer.returncode == 0, answer.stderr

    process = subprocess.Popen(
        command(log, killed, *steps), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while not (killed / "checkpoint-7/trainer_state.json").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (killed / "results.json").exists()

    answer = run(log, killed, *steps, "--resume_from_checkpoint", "true")
    assert answer.returncode == 0, answer.stderr
    assert metrics_of(killed) == metrics_of(whole)
    assert json.loads((killed / "results.json").read_text())["resumed_from"].startswith("checkpoint-")
    weights = [AutoModel.from_pretrained(folder).state_dict() for folder in (whole, killed)]
    for name, tensor in weights[0].items():
        assert torch.equal(tensor, weights[1][name]), name
