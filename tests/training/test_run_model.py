"""A run that goes on from a checkpoint: what may be asked of it, and what it starts from."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hf_seqrec import SASRec, SASRecConfig
from hf_seqrec.checkpoints.load import load_checkpoint
from hf_seqrec.data.catalog import Catalog
from hf_seqrec.training.run_arguments import parse_run_arguments
from hf_seqrec.training.run_data import load_run_data
from hf_seqrec.training.run_model import load_start, make_run_model
from tests.helpers import small_model

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkpoint(tmp_path):
    """Save a model that knows items i0 to i9 and gone; i10 and i11 of the log are new to it."""
    folder = tmp_path / "start"
    small_model(12).save_pretrained(folder)
    Catalog.from_items([*(f"i{item}" for item in range(10)), "gone"]).save(folder)
    return str(folder)


@pytest.fixture
def log(tmp_path):
    lines = ["user,item,timestamp"]
    for user in range(30):
        lines += [f"u{user},i{(user + event + event // 4) % 12},{60 * event}" for event in range(6 + user % 9)]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def parse(checkpoint, *arguments):
    return parse_run_arguments(["--model_name_or_path", checkpoint, "--max_length", "10", *arguments])


def model_of(checkpoint, log, tmp_path, *arguments):
    """Return what a run would train, its catalog, and where it says it comes from."""
    parsed = parse(checkpoint, "--dataset", log, "--output_dir", str(tmp_path / "run"), *arguments)
    start = load_start(parsed)
    keep = start.catalog if parsed.model.keep_vanished_items else None
    sequences, splits = load_run_data(parsed, keep)
    model, origin = make_run_model(parsed, start, sequences.catalog, splits)
    return model, sequences.catalog, origin


class TestArguments:
    def test_the_checkpoint_says_what_the_model_is(self, checkpoint):
        arguments = parse(checkpoint)
        assert arguments.model.model_type == "mamba4rec"
        assert (arguments.network["hidden_size"], arguments.network["state_size"]) == (16, 4)
        assert arguments.model.new_items == "cooccurrence"
        assert parse(checkpoint, "--streaming", "true").model.new_items == "mean"
        trained = arguments.run_identity().same
        assert (trained["model_name_or_path"], trained["new_items"]) == (checkpoint, "cooccurrence")

    def test_the_machine_may_be_another(self, checkpoint):
        arguments = parse(checkpoint, "--scan_backend", "chunked")
        assert arguments.network["scan_backend"] == "chunked"
        assert arguments.run_identity() == parse(checkpoint).run_identity()

    def test_a_recipe_may_say_the_same_again(self, checkpoint, tmp_path):
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text("model_type: mamba4rec\nhidden_size: 16\nhidden_dropout_prob: 0.4\n")
        network = parse(checkpoint, "--config", str(recipe)).network
        assert (network["hidden_size"], network["hidden_dropout_prob"]) == (16, 0.4)

    @pytest.mark.parametrize(
        ("asked", "message"),
        [
            ("--model_type sasrec", r"`model_type` must be that of .*start, 'mamba4rec', got 'sasrec'"),
            (
                "--hidden_size 32 --num_hidden_layers 2",
                r"`hidden_size`, `num_hidden_layers` must be as in .*\(hidden_size: 16 there, 32 here, ",
            ),
            ("--new_items zero", "invalid choice: 'zero'"),
            (
                "--streaming true --keep_vanished_items true",
                "`keep_vanished_items` must come without `--streaming true`",
            ),
            (
                "--streaming true --new_items cooccurrence",
                "`new_items cooccurrence` must come without `--streaming true`",
            ),
        ],
    )
    def test_what_a_checkpoint_does_not_allow(self, checkpoint, asked, message, capsys):
        with pytest.raises((ValueError, SystemExit)) as error:
            parse(checkpoint, *asked.split())
        assert re.search(message, f"{error.value} {capsys.readouterr().err}")

    def test_positions(self, tmp_path):
        SASRec(SASRecConfig(vocab_size=12, hidden_size=8, max_position_embeddings=20)).save_pretrained(tmp_path)
        with pytest.raises(
            ValueError, match=r"`max_length` must be at most the 20 positions .* Pass `--max_length 20`"
        ):
            parse(str(tmp_path), "--max_length", "50")

    def test_options_that_go_with_a_checkpoint(self):
        asked = ["--freeze_encoder", "true", "--new_items", "mean"]
        with pytest.raises(ValueError, match="`new_items`, `freeze_encoder` must come with `--model_name_or_path`"):
            parse_run_arguments(asked)

    def test_no_checkpoint(self, tmp_path):
        with pytest.raises(ValueError, match=r"is not a checkpoint folder: it has no config\.json"):
            parse(str(tmp_path))


class TestModel:
    def test_known_items_come_with_their_embedding_and_new_ones_have_neighbours(self, checkpoint, log, tmp_path):
        model, catalog, origin = model_of(checkpoint, log, tmp_path)
        start, known = load_checkpoint(checkpoint)
        assert origin.endswith(
            ": 10 of its 11 items are in the catalog, 2 items are new and start from `cooccurrence`"
        )
        assert (model.config.n_items, catalog.n_items) == (12, 12)
        items, before = model.item_embeddings.weight, start.item_embeddings.weight
        for item_id in ("i0", "i9"):
            assert torch.equal(items[catalog.encode([item_id])], before[known.encode([item_id])])
        new = items[catalog.encode(["i10", "i11"])]
        assert not torch.allclose(new[0], new[1])
        again, _, _ = model_of(checkpoint, log, tmp_path)
        assert torch.equal(again.item_embeddings.weight, items)

    def test_vanished_items_are_kept(self, checkpoint, log, tmp_path):
        model, catalog, origin = model_of(checkpoint, log, tmp_path, "--keep_vanished_items", "true")
        start, _ = load_checkpoint(checkpoint)
        assert "11 of its 11 items are in the catalog" in origin
        assert catalog.encode(["gone"]).tolist() == [13]
        assert torch.equal(model.item_embeddings.weight[13], start.item_embeddings.weight[11])

    def test_dropout_may_change(self, checkpoint, log, tmp_path):
        model, _, _ = model_of(checkpoint, log, tmp_path, "--hidden_dropout_prob", "0.45")
        assert model.config.hidden_dropout_prob == 0.45
        assert {module.p for module in model.modules() if hasattr(module, "p")} == {0.45}

    def test_nothing_in_common(self, checkpoint, tmp_path):
        log = tmp_path / "foreign.csv"
        log.write_text("user,item,timestamp\n" + "".join(f"u,a{event},{event}\n" for event in range(6)))
        with pytest.raises(ValueError, match=r"of 11 items \(such as 'i0'\) .* share no raw item id"):
            model_of(checkpoint, str(log), tmp_path)


def test_a_run_with_a_frozen_encoder_that_is_resumed(checkpoint, log, tmp_path):
    output = tmp_path / "run"
    options = {
        "model_name_or_path": checkpoint,
        "dataset": log,
        "output_dir": output,
        "max_length": 10,
        "num_train_epochs": 2,
        "freeze_encoder": True,
        "keep_vanished_items": True,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "hf_seqrec", "train", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"from {checkpoint}: 11 of its 11 items are in the catalog" in done.stdout
    model, catalog = load_checkpoint(output)
    start, _ = load_checkpoint(checkpoint)
    assert catalog.item_ids.to_pylist()[-1] == "gone"
    assert model.config.n_items == 13
    for name, parameter in start.named_parameters():
        if name != "item_embeddings.weight":
            assert torch.equal(model.get_parameter(name), parameter), name
    assert not torch.equal(model.item_embeddings.weight[catalog.encode(["i0"])], start.item_embeddings.weight[[1]])
    results = json.loads((output / "results.json").read_text())
    assert results["arguments"]["model_name_or_path"] == "start"  # without the folders of this machine

    # As if the run had been killed in its second epoch.
    first, second = sorted(output.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    wanted = load_file(second / "model.safetensors")
    shutil.rmtree(second)
    (output / "model.safetensors").unlink()
    resume = [*command, "--resume_from_checkpoint", str(first)]
    done = subprocess.run(resume, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(load_file(second / "model.safetensors"), wanted, rtol=0, atol=0)
    assert (output / "model.safetensors").exists()
