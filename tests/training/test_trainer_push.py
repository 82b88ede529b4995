"""What a Trainer pushes, while it trains and at the end, and what remains where the Hub does not take it."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from transformers import AutoModel

import hf_seqrec.hub.upload
from hf_seqrec.checkpoints.load import load_checkpoint
from hf_seqrec.hub.upload import PushError
from hf_seqrec.training.training_args import SeqRecTrainingArguments
from tests.checkpoints.test_card import RESULTS
from tests.helpers import walks
from tests.hub_server import READ_TOKEN, TOKEN, Answer, HubServer
from tests.training.test_trainer import trainer_for

ROOT = Path(__file__).parents[2]
SHARED = {"config.json", "model.safetensors", "catalog.parquet", "README.md", "modeling_mamba4rec.py"}


@pytest.fixture
def hub(monkeypatch):
    with HubServer() as server:
        monkeypatch.setattr(hf_seqrec.hub.upload, "HfApi", lambda token: HfApi(server.address, token=token))
        monkeypatch.setattr(hf_seqrec.hub.upload, "WAITS", ())
        yield server


def pushing_trainer(folder, **arguments):
    arguments = {
        "push_to_hub": True,
        "hub_model_id": "org/walks",
        "hub_token": TOKEN,
        "num_train_epochs": 2,
    } | arguments
    return trainer_for(folder, walks(), **arguments)


def test_every_save_is_pushed_and_the_end_has_the_results(hub, tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    trainer = pushing_trainer(tmp_path, hub_private_repo=True, hub_always_push=True)
    assert hub.repositories["models", "org/walks"].private
    trainer.train()
    messages = hub.repositories["models", "org/walks"].messages
    assert messages == ["initial commit", "Training in progress, step 5", "Training in progress, step 10"]
    files = hub.files("org/walks")
    assert set(files) >= SHARED
    assert b"Nothing was measured with this checkpoint." in files["README.md"]
    assert files["model.safetensors"] == (tmp_path / "checkpoint-10" / "model.safetensors").read_bytes()

    trainer.results = RESULTS
    commit = trainer.push_to_hub(tags=["films"], license="mit")
    assert commit.commit_message == "End of training"
    files = hub.files("org/walks")
    card = files["README.md"].decode()
    assert f"| {RESULTS['metrics']['test_ndcg@10']:.4f} |" in card
    assert 'Recommender.from_pretrained("org/walks")' in card
    assert "- films" in card
    assert "license: mit" in card
    # Nothing pickled, nothing of the run's own, and the token nowhere: here, there, or in a log.
    assert {Path(name).suffix for name in files} <= {".json", ".safetensors", ".parquet", ".md", ".py", ".png"}
    assert "training_args.json" not in files
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(TOKEN.encode() in content for content in [*hub.contents.values(), *written])
    assert TOKEN not in caplog.text
    assert not list(tmp_path.glob(".push-*"))


def test_checkpoints_to_resume_from(hub, tmp_path):
    trainer = pushing_trainer(tmp_path, num_train_epochs=1, hub_strategy="checkpoint", hub_revision="wip")
    trainer.train()
    assert hub.files("org/walks") == {}
    files = hub.files("org/walks", "wip")
    assert {"model.safetensors", "last-checkpoint/optimizer.pt", "last-checkpoint/trainer_state.json"} <= set(files)


def test_only_the_end(hub, tmp_path):
    trainer = pushing_trainer(tmp_path, num_train_epochs=1, hub_strategy="end")
    trainer.train()
    assert hub.files("org/walks") == {}
    trainer.save_model()
    assert set(hub.files("org/walks")) >= SHARED


def test_training_survives_a_hub_that_fails(hub, tmp_path, caplog):
    trainer = pushing_trainer(tmp_path)
    hub.fail("POST /api/models/.*/commit/", lambda: Answer(500, {"error": "down"}), times=100)
    trainer.train()
    assert trainer.state.global_step == 10
    assert (
        "A checkpoint was not pushed, and training goes on. The Hub did not take the push to org/walks" in caplog.text
    )
    with pytest.raises(PushError, match=r"Nothing is lost: .*is complete on this machine") as error:
        trainer.push_to_hub()
    assert f"hf-seqrec push {tmp_path} org/walks" in str(error.value)
    # The best weights, with all that a checkpoint has.
    model, catalog = load_checkpoint(tmp_path)
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    assert catalog.n_items == 12


def test_a_token_that_may_not_write_is_found_before_training(hub, tmp_path):
    with pytest.raises(PushError, match="answered 403"):
        pushing_trainer(tmp_path, hub_token=READ_TOKEN)


def test_what_is_no_name_of_a_repository(tmp_path):
    with pytest.raises(ValueError, match=r"`hub_model_id` must be the name of a repository on the Hub, .* got 'a b'"):
        SeqRecTrainingArguments(output_dir=str(tmp_path), push_to_hub=True, hub_model_id="a b")


@pytest.mark.slow
def test_a_run_whose_last_push_fails_has_lost_nothing(tmp_path):
    log = tmp_path / "shop.csv"
    lines = [f"u{user},i{(user + event) % 12},{event}" for user in range(40) for event in range(6 + user % 9)]
    log.write_text("\n".join(["user,item,time", *lines]))
    run = tmp_path / "run"
    options = {"dataset": log, "output_dir": run, "hidden_size": 16, "state_size": 4, "num_train_epochs": 1}
    options |= {"hub_model_id": "org/shop", "hub_strategy": "end", "hub_token": TOKEN}
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    command = [sys.executable, "-m", "hf_seqrec", "train", "--push_to_hub", *words]
    with HubServer() as hub:
        hub.fail("POST /api/models/.*/commit/", lambda: Answer(400, {"error": "not today"}), times=1)
        done = subprocess.run(
            command, env=hub.environment(tmp_path / "cache"), capture_output=True, text=True, check=False
        )
        assert done.returncode != 0
        assert "Test, 40 users" in done.stdout
        assert f"Nothing is lost: {run} is complete on this machine" in done.stderr
        # The command that the error names.
        words = ["-m", "hf_seqrec.hub.push", str(run), "org/shop"]
        environment = hub.environment(tmp_path / "cache", TOKEN)
        again = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=False)
        assert again.returncode == 0, again.stderr
        files = hub.files("org/shop")
    assert set(files) >= SHARED | {"results.json", "curves.png"}
    assert not [name for name in files if name.startswith("dataset/")]
    results = json.loads(files["results.json"])
    assert f"| {results['metrics']['test_ndcg@10']:.4f} |" in files["README.md"].decode()
    assert "--hub_token '<token>'" in results["command"]
    texts = [path.read_bytes() for path in run.rglob("*") if path.is_file()]
    outputs = (done.stdout + done.stderr + again.stdout + again.stderr).encode()
    assert not any(TOKEN.encode() in content for content in [*files.values(), *texts, outputs])
    assert type(AutoModel.from_pretrained(run)).__name__ == "Mamba4Rec"
