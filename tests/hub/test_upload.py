"""The round trip: pushed from one process, loaded in another without the package and in a third with it."""

import json
import subprocess
import sys

import pytest
import torch
from huggingface_hub import HfApi

import hf_seqrec.hub.upload
from hf_seqrec.checkpoints.card import write_model_card
from hf_seqrec.cli.push import main as push
from hf_seqrec.hub.push import push_checkpoint
from hf_seqrec.ingest.synthetic import build_synthetic
from tests.checkpoints.test_card import RESULTS
from tests.helpers import small_model, walks
from tests.hub_server import HANG_UP, TOKEN, HubServer

HISTORY = ["id-3", "id-1", "id-4"]

WITHOUT_THE_PACKAGE = """
import json, sys
sys.modules["hf_seqrec"] = None
import torch
from transformers import AutoModel

model = AutoModel.from_pretrained("org/walks", trust_remote_code=True)
assert type(model).__module__.startswith("transformers_modules."), type(model)
rows, scores = model.recommend(torch.tensor([[3, 1, 4]]), top_k=5)
model.push_to_hub("org/walks-again")

import evaluate
coverage = evaluate.load("org/beyond_accuracy").compute(predictions=[[1, 2]], item_counts=[0, 4, 2])
print(json.dumps({"rows": rows.tolist(), "scores": scores.tolist(), "coverage": coverage["coverage@2"]}))
"""

WITH_THE_PACKAGE = """
import contextlib, io, json, os, sys
import torch
import hf_seqrec
from huggingface_hub import hf_hub_download
from transformers import AutoModel
from hf_seqrec.training.run_arguments import parse_run_arguments
from hf_seqrec.checkpoints.load import load_checkpoint
from hf_seqrec.cli.recommend import main as recommend
from hf_seqrec.inference.recommender import Recommender
from hf_seqrec.training.run_data import load_run_data

answer = {}
model = AutoModel.from_pretrained("org/walks")
assert type(model) is hf_seqrec.Mamba4Rec, type(model)
rows, scores = model.recommend(torch.tensor([[3, 1, 4]]), top_k=5)
answer |= {"rows": rows.tolist(), "scores": scores.tolist()}

history = sys.argv[2:]
answer["by id"] = [item.item_id for item in Recommender.from_pretrained("org/walks").recommend(history, top_k=5)]
with contextlib.redirect_stdout(io.StringIO()) as printed:
    recommend(["org/walks", "--history", *history, "--top_k", "5"])
answer["printed"] = printed.getvalue()

with open(hf_hub_download("org/walks", "README.md"), encoding="utf-8") as file:
    example = file.read().split("```python\\n")[1].split("```")[0]
with contextlib.redirect_stdout(io.StringIO()) as printed:
    exec(example.replace('"raw id", "another raw id"', '"id-3", "id-1"'))
answer["the card's example"] = printed.getvalue()

model, catalog = load_checkpoint("org/walks", revision="larger")
answer["of the branch"] = [model.config.hidden_size, catalog.n_items]


def refusal(load, *arguments, **options):
    try:
        load(*arguments, **options)
    except (ValueError, OSError) as error:
        return str(error)


answer["no such branch"] = refusal(load_checkpoint, "org/walks", revision="smaller")
answer["private"] = refusal(load_checkpoint, "org/secret")
answer["private model"] = refusal(AutoModel.from_pretrained, "org/secret")
answer["cut short"] = refusal(load_checkpoint, "org/cut")
answer["no name"] = refusal(load_checkpoint, "my model")
os.environ["HF_TOKEN"] = "hf_nobody_has_this_one"
answer["another token"] = refusal(load_checkpoint, "org/secret")
os.environ["HF_TOKEN"] = sys.argv[1]
answer["private, with a token"] = load_checkpoint("org/secret").catalog.n_items
answer["missing, with a token"] = refusal(load_checkpoint, "org/missing")
del os.environ["HF_TOKEN"]

from datasets import load_dataset

data = load_dataset("org/data", split="train")
answer["users"] = len(data)
answer["catalog columns"] = load_dataset("org/data", "catalog", split="train").column_names
arguments = parse_run_arguments(["--dataset", "org/data", "--output_dir", os.environ["HF_HOME"] + "/run"])
sequences, splits = load_run_data(arguments)
answer["sequences"] = [sequences.statistics["n_users"], len(splits.test)]
print(json.dumps(answer))
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    model = small_model(13)
    model.save_pretrained(folder)
    walks().catalog.save(folder)
    (folder / "results.json").write_text(json.dumps(RESULTS))
    write_model_card(folder, model.config, RESULTS)
    return folder


@pytest.fixture(scope="module")
def hub(checkpoint, tmp_path_factory):
    """Start a Hub to which a checkpoint was pushed by a process that was killed, and then by one that was not."""
    folder = tmp_path_factory.mktemp("hub")
    command = [sys.executable, "-m", "hf_seqrec", "push", str(checkpoint), "org/walks"]
    with HubServer() as server, pytest.MonkeyPatch.context() as patch:
        environment = server.environment(folder / "cache", TOKEN)
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def kill():
            process.kill()
            return HANG_UP

        server.fail("POST /api/models/.*/commit/", kill)
        assert process.wait() < 0
        assert server.files("org/walks") == {}
        server.sent_before_the_kill = server.count("PUT /lfs/")
        server.pushed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert server.pushed.returncode == 0, server.pushed.stderr

        patch.setattr(hf_seqrec.hub.upload, "HfApi", lambda token: HfApi(server.address, token=TOKEN))
        push([str(checkpoint), "org/secret", "--private"])
        secret = server.repositories["models", "org/secret"]
        server.contents["state"] = b"of an optimizer"
        secret.add("main", secret.commits[secret.branches["main"]] | {"last-checkpoint/optimizer.pt": "state"}, "Save")
        push([str(checkpoint), "org/cut"])
        cut = server.repositories["models", "org/cut"]
        weights = server.files("org/cut")["model.safetensors"]
        server.contents["cut"] = weights[:-100]
        cut.add("main", cut.commits[cut.branches["main"]] | {"model.safetensors": "cut"}, "Cut")
        larger = folder / "larger"
        small_model(14, num_hidden_layers=2).save_pretrained(larger)
        walks(n_items=13).catalog.save(larger)
        push_checkpoint(larger, "org/walks", revision="larger")
        push([str(build_synthetic(folder / "data", n_users=20)), "org/data", "--no-private"])
        push(["beyond_accuracy", "org/beyond_accuracy"])
        yield server


@pytest.fixture(scope="module")
def answers(hub, tmp_path_factory):
    """Ask both processes, each with an empty cache, at the same time."""
    processes = []
    for script, token in ((WITHOUT_THE_PACKAGE, TOKEN), (WITH_THE_PACKAGE, None)):
        environment = hub.environment(tmp_path_factory.mktemp("cache"), token) | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        command = [sys.executable, "-c", script, TOKEN, *HISTORY]
        processes.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    outputs = [process.communicate() for process in processes]
    for process, (_, stderr) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, stderr
    hub.outputs = [text for pair in outputs for text in pair]
    return [json.loads(stdout.splitlines()[-1]) for stdout, _ in outputs]


def test_a_killed_push_goes_on_where_it_was(hub):
    assert hub.sent_before_the_kill == 2  # weights and catalog
    files = hub.files("org/walks")
    assert {"model.safetensors", "catalog.parquet", "README.md", "results.json"} <= set(files)
    assert "Pushed" in hub.pushed.stdout
    # Of these contents nothing was sent twice.
    puts = [request for request in hub.requests if request.startswith("PUT ")]
    assert len(puts) == len(set(puts))


def test_recommendations_are_the_same_everywhere(answers, checkpoint):
    model = small_model(13).eval()
    rows, scores = model.recommend(torch.tensor([[3, 1, 4]]), top_k=5)
    for answer in answers:
        assert answer["rows"] == rows.tolist()
        torch.testing.assert_close(torch.tensor(answer["scores"]), scores, rtol=1e-5, atol=1e-6)
    by_id = walks().catalog.decode(rows[0])
    assert answers[1]["by id"] == by_id
    ranking = answers[1]["printed"].split("Recommended:")[1]
    assert [line.split()[2] for line in ranking.strip().splitlines()] == [item.removeprefix("id-") for item in by_id]


def test_the_example_in_the_card_runs(answers):
    lines = answers[1]["the card's example"].splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(
        f"id-{row}" for row in range(1, 13) if row not in (1, 3)
    )


def test_a_branch(answers):
    assert answers[1]["of the branch"] == [16, 13]
    assert "'org/walks' is no folder, nor a model on the Hub that can be reached" in answers[1]["no such branch"]


def test_what_is_private_takes_a_token(answers):
    answer = answers[1]
    assert "401" in answer["private"]
    assert "org/secret" in answer["private model"]
    assert answer["private, with a token"] == 12
    assert "404" in answer["missing, with a token"]
    assert "401" in answer["another token"]


def test_a_runs_own_state_is_not_downloaded(hub, answers):
    assert "last-checkpoint/optimizer.pt" in hub.files("org/secret")
    assert hub.count("GET /org/secret/resolve/.*/model.safetensors") == 1
    assert hub.count("GET /org/secret/resolve/.*/optimizer.pt") == 0


def test_what_is_damaged_or_no_name_is_refused(answers):
    assert "cannot be read, they are cut short or damaged" in answers[1]["cut short"]
    assert "'my model' is no folder, nor a model on the Hub" in answers[1]["no name"]


def test_a_model_loaded_from_the_hub_is_pushed_on_whole(hub, answers):
    before, after = (hub.files(name) for name in ("org/walks", "org/walks-again"))
    for name in ("model.safetensors", "catalog.parquet", "modeling_mamba4rec.py"):
        assert after[name] == before[name], name
    assert f"| {RESULTS['metrics']['test_ndcg@10']:.4f} |" in after["README.md"].decode()


def test_a_dataset_and_a_metric(answers):
    assert answers[0]["coverage"] == 1.0
    assert answers[1]["users"] == 20
    assert answers[1]["catalog columns"][:3] == ["row", "item_id", "count"]
    assert answers[1]["sequences"] == [20, 20]


def test_no_token_in_what_was_printed_or_pushed(hub, answers):
    for text in (*hub.outputs, hub.pushed.stdout, hub.pushed.stderr):
        assert TOKEN not in text
    assert not any(TOKEN.encode() in content for content in hub.contents.values())
