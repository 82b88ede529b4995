"""Two processes on one machine learn and measure what one does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Write 48 users who mostly go from each item to the next: whole batches to train on, uneven ones to rank."""
    path = tmp_path_factory.mktemp("log") / "shop.csv"
    lines = ["user,item,timestamp"]
    for user in range(48):
        lines += [f"u{user},i{(user + event + event // 4) % 12},{60 * event}" for event in range(6 + user % 9)]
    path.write_text("\n".join(lines) + "\n")
    return path


LAUNCHERS = {
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"],
    "accelerate": [
        *(sys.executable, "-m", "accelerate.commands.launch"),
        *("--config_file", str(ROOT / "trainer/accelerate/two_cpu_processes.yaml")),
    ],
}


def run(launcher, log, output_dir, batch_size, **more):
    options = {
        "dataset": log,
        "output_dir": output_dir,
        "hidden_size": 16,
        "state_size": 4,
        # Ranks draw dropout each for themselves.
        "hidden_dropout_prob": 0.0,
        "max_length": 10,
        "num_train_epochs": 2,
        "per_device_train_batch_size": batch_size,
        "per_device_eval_batch_size": 5,
        **more,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return subprocess.run([*launcher, "-m", "hf_seqrec", "train", *words], capture_output=True, text=True, timeout=600)


def results_and_weights(launcher, log, output_dir, batch_size, **more):
    done = run(launcher, log, output_dir, batch_size, **more)
    assert done.returncode == 0, done.stderr
    return json.loads((output_dir / "results.json").read_text()), load_file(output_dir / "model.safetensors")


@pytest.fixture(scope="module")
def of_one_process(log, tmp_path_factory):
    return results_and_weights([sys.executable], log, tmp_path_factory.mktemp("one") / "run", batch_size=8)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_equal_one(log, of_one_process, tmp_path, launcher):
    results, weights = of_one_process
    results_of_two, weights_of_two = results_and_weights(LAUNCHERS[launcher], log, tmp_path / "two", batch_size=4)
    # Every user counts once, though the last batch is filled up with users who were there before.
    found, expected = (
        {name: value for name, value in answer["metrics"].items() if not name.endswith("loss")}
        for answer in (results_of_two, results)
    )
    assert found == pytest.approx(expected, abs=1e-6)
    assert weights.keys() == weights_of_two.keys()
    for name, weight in weights.items():
        assert (weights_of_two[name] - weight).abs().max() < 1e-4, name


@pytest.mark.slow
def test_accelerate_starts_fewer_processes_than_it_was_asked_for(log, tmp_path):
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    done = run(launcher, log, tmp_path / "run", batch_size=4)
    assert done.returncode != 0
    assert "error: `--num_processes` of `accelerate launch` must be" in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_processes_add_up_sparse_gradients(log, tmp_path):
    options = {"loss": "bce", "num_negatives": 3, "embedding_optimizer": "rowwise_adagrad"}
    _, weights = results_and_weights([sys.executable], log, tmp_path / "one", batch_size=8, **options)
    _, weights_of_two = results_and_weights(LAUNCHERS["torchrun"], log, tmp_path / "two", batch_size=4, **options)
    for name, weight in weights.items():
        assert (weights_of_two[name] - weight).abs().max() < 1e-4, name
