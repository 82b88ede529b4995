"""What is pushed, and what happens where the Hub refuses, fails or hangs up: the real client against a local Hub."""

import json
import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError

import hf_seqrec.hub.upload
from hf_seqrec.cli.push import main
from hf_seqrec.data.catalog import Catalog
from hf_seqrec.hub.push import push_checkpoint
from hf_seqrec.hub.upload import PushError, upload
from hf_seqrec.ingest.synthetic import build_synthetic
from tests.checkpoints.test_card import RESULTS
from tests.helpers import small_model, walks
from tests.hub_server import HANG_UP, READ_TOKEN, TOKEN, Answer, HubServer

SHARED = {
    *("config.json", "model.safetensors", "catalog.parquet", "README.md", "results.json", "curves.png"),
    *("modeling_mamba4rec.py", "configuration_mamba4rec.py", "modeling_seqrec.py", "loss_full_softmax.py"),
}
PRIVATE = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "training_args.json", "run.json")


@pytest.fixture
def hub(monkeypatch):
    """Start a Hub, and have what is pushed go there with a token that may write."""
    with HubServer() as server:
        server.token = TOKEN
        monkeypatch.setattr(
            hf_seqrec.hub.upload, "HfApi", lambda token: HfApi(server.address, token=token or server.token)
        )
        monkeypatch.setattr(hf_seqrec.hub.upload, "WAITS", (0.0, 0.0))
        yield server


@pytest.fixture
def checkpoint(tmp_path):
    """Make what a run leaves: what is shared, and what is its own."""
    folder = tmp_path / "run"
    small_model(13).save_pretrained(folder)
    walks().catalog.save(folder)
    (folder / "results.json").write_text(json.dumps(RESULTS))
    (folder / "curves.png").write_bytes(b"a picture")
    for place in (folder, folder / "checkpoint-7"):
        place.mkdir(exist_ok=True)
        for name in PRIVATE:
            (place / name).write_bytes(b"not to be shared")
    small_model(13).save_pretrained(folder / "checkpoint-7")
    (folder / "dataset" / "sequences").mkdir(parents=True)
    pq.write_table(pa.table({"user_id": ["somebody"]}), folder / "dataset" / "sequences" / "part-00000.parquet")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "hidden.json").write_text("{}")
    return folder


def contents(folder):
    return {path: path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


class TestCheckpoint:
    def test_what_others_can_use_and_nothing_else(self, hub, checkpoint):
        before = contents(checkpoint)
        commit = push_checkpoint(checkpoint, "org/shop", licence="mit")
        assert commit.repo_url.repo_id == "org/shop"
        files = hub.files("org/shop")
        assert set(files) >= SHARED
        assert {name for name in files if not name.endswith(".py")} == {
            name for name in SHARED if not name.endswith(".py")
        }
        for name, content in files.items():
            assert name == "README.md" or content == (checkpoint / name).read_bytes()
        card = ModelCard(files["README.md"].decode())
        assert 'Recommender.from_pretrained("org/shop")' in card.text
        assert f"| {RESULTS['metrics']['test_ndcg@10']:.4f} |" in card.text
        assert "](curves.png)" in card.text
        assert card.data.license == "mit"
        assert contents(checkpoint) == before

    def test_a_card_that_somebody_wrote_stays(self, hub, checkpoint):
        (checkpoint / "README.md").write_text("---\nlicense: cc0-1.0\n---\n# Mine\n\nload this/repository\n")
        push_checkpoint(checkpoint, "org/shop", licence="mit")
        card = hub.files("org/shop")["README.md"].decode()
        assert card == "---\nlicense: cc0-1.0\n---\n# Mine\n\nload org/shop\n"

    def test_a_checkpoint_without_results_says_so(self, hub, checkpoint):
        (checkpoint / "results.json").unlink()
        push_checkpoint(checkpoint, "org/shop")
        assert b"Nothing was measured with this checkpoint." in hub.files("org/shop")["README.md"]

    def test_a_private_one_and_a_branch(self, hub, checkpoint):
        push_checkpoint(checkpoint, "org/shop", private=True)
        assert hub.repositories["models", "org/shop"].private
        main_files = hub.files("org/shop")
        (checkpoint / "README.md").write_text("# Tried\n")
        push_checkpoint(checkpoint, "org/shop", revision="try", commit_message="Try")
        assert hub.files("org/shop") == main_files
        assert hub.files("org/shop", "try")["README.md"] == b"# Tried\n"
        assert hub.repositories["models", "org/shop"].messages[-1] == "Try"
        # The branch is there already.
        (checkpoint / "README.md").write_text("# Tried again\n")
        push_checkpoint(checkpoint, "org/shop", revision="try")
        assert hub.files("org/shop", "try")["README.md"] == b"# Tried again\n"

    def test_a_name_without_a_namespace_is_the_users(self, hub, checkpoint):
        push_checkpoint(checkpoint, "shop")
        assert b'Recommender.from_pretrained("me/shop")' in hub.files("me/shop")["README.md"]

    def test_a_repository_that_is_there_gets_what_changed(self, hub, checkpoint):
        push_checkpoint(checkpoint, "org/shop")
        with pytest.raises(HfHubHTTPError, match="409"):
            HfApi(hub.address, token=TOKEN).create_repo("org/shop")
        sent = hub.count("PUT /lfs/")
        assert sent == 3  # weights, catalog, picture
        (checkpoint / "curves.png").write_bytes(b"another picture")
        push_checkpoint(checkpoint, "org/shop")
        assert hub.count("PUT /lfs/") == sent + 1
        assert hub.files("org/shop")["curves.png"] == b"another picture"

    @pytest.mark.parametrize("name", ["", "a b", "org/a/b", "org/..", "org/-", "org/a--b", "runs/ml-1m/", "x" * 97])
    def test_what_is_no_name_of_a_repository(self, hub, checkpoint, name):
        with pytest.raises(ValueError, match=r"`repo_id` must be the name of a repository on the Hub.*'org/name'"):
            push_checkpoint(checkpoint, name)
        assert hub.requests == []

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
            (lambda folder: (folder / "model.safetensors").unlink(), r"lacks weights \(\*.safetensors\)"),
            (lambda folder: (folder / "modeling_mamba4rec.py").unlink(), "lacks modeling_mamba4rec.py"),
            (lambda folder: (folder / "catalog.parquet").unlink(), "lacks catalog.parquet"),
            (lambda folder: Catalog.from_items(["a", "b"]).save(folder), "has 2 items, but the model has 12"),
            (
                lambda folder: (folder / "model.safetensors").write_bytes(
                    (folder / "model.safetensors").read_bytes()[:-1]
                ),
                "model.safetensors is cut short or damaged, so it was not pushed",
            ),
        ],
        ids=["no configuration", "no weights", "no code", "no catalog", "another catalog", "cut short"],
    )
    def test_nothing_broken_is_shared(self, hub, checkpoint, spoil, message):
        spoil(checkpoint)
        with pytest.raises(ValueError, match=message):
            push_checkpoint(checkpoint, "org/shop")
        assert hub.requests == []


class TestFailures:
    """The Hub refuses, fails or hangs up. The folder stays as it is, and a later push completes what is there."""

    @pytest.fixture(autouse=True)
    def _nothing_is_lost(self, hub, checkpoint):
        before = contents(checkpoint)
        yield
        assert contents(checkpoint) == before
        hub.token = TOKEN
        push_checkpoint(checkpoint, "org/shop")
        assert set(hub.files("org/shop")) >= SHARED

    @pytest.mark.parametrize(
        ("token", "message"),
        [
            ("hf_nobody_has_this_one", r"answered 401 \(Invalid credentials.*hf auth login"),
            (READ_TOKEN, r"answered 403 .*needs to be allowed to write"),
        ],
    )
    def test_a_token_that_may_not_write(self, hub, checkpoint, token, message):
        hub.token = token
        with pytest.raises(PushError, match=message) as error:
            push_checkpoint(checkpoint, "org/shop")
        assert token not in str(error.value)
        assert not hub.repositories

    @pytest.mark.parametrize("request_", ["POST /api/repos/create", "POST /api/models/.*/commit/", "PUT /lfs/"])
    def test_an_error_that_passes(self, hub, checkpoint, caplog, request_):
        hub.fail(request_, lambda: Answer(500, {"error": "a bad moment"}))
        push_checkpoint(checkpoint, "org/shop")
        assert set(hub.files("org/shop")) >= SHARED
        assert "500" in caplog.text

    def test_a_connection_that_breaks(self, hub, checkpoint):
        hub.fail("POST /api/models/.*/commit/", lambda: HANG_UP)
        push_checkpoint(checkpoint, "org/shop")
        assert set(hub.files("org/shop")) >= SHARED

    def test_an_interrupted_upload_goes_on_where_it_was(self, hub, checkpoint):
        hub.fail("POST /api/models/.*/commit/", lambda: Answer(503, {"error": "closed"}), times=3)
        with pytest.raises(PushError, match="answered 503"):
            push_checkpoint(checkpoint, "org/shop")
        assert hub.files("org/shop") == {}
        sent = hub.count("PUT /lfs/")
        push_checkpoint(checkpoint, "org/shop")
        assert hub.count("PUT /lfs/") == sent == 3
        assert set(hub.files("org/shop")) >= SHARED

    def test_a_hub_that_is_not_there(self, hub, checkpoint, monkeypatch):
        monkeypatch.setattr(hf_seqrec.hub.upload, "HfApi", lambda token: HfApi("http://127.0.0.1:9", token=TOKEN))
        with pytest.raises(PushError, match=r"org/shop: the transfer failed \(ConnectError"):
            push_checkpoint(checkpoint, "org/shop")
        monkeypatch.setattr(hf_seqrec.hub.upload, "HfApi", lambda token: HfApi(hub.address, token=TOKEN))

    def test_what_is_not_the_hubs_doing_is_not_hidden(self, hub, checkpoint):
        with pytest.raises(ValueError, match="is not a directory"):
            upload(checkpoint / "config.json", "org/shop")


class TestToken:
    def test_it_is_in_no_file_and_no_line(self, hub, checkpoint, caplog, capfd):
        caplog.set_level(logging.DEBUG)
        hub.fail("POST /api/repos/create", lambda: Answer(500, {"error": "a bad moment"}))
        push_checkpoint(checkpoint, "org/shop", token=TOKEN)
        printed = capfd.readouterr()
        for text in (caplog.text, printed.out, printed.err):
            assert TOKEN not in text
        assert not any(TOKEN.encode() in content for content in hub.contents.values())

    def test_a_file_with_the_token_in_it_is_not_pushed(self, hub, checkpoint):
        (checkpoint / "results.json").write_text(json.dumps(RESULTS | {"command": f"run --hub_token {TOKEN}"}))
        with pytest.raises(ValueError, match=r"results.json holds your Hub token") as error:
            push_checkpoint(checkpoint, "org/shop", token=TOKEN)
        assert TOKEN not in str(error.value)
        assert hub.requests == []


class TestCommand:
    def test_a_checkpoint(self, hub, checkpoint, capsys):
        main([str(checkpoint), "org/shop", "--private", "--license", "apache-2.0"])
        printed = capsys.readouterr().out
        assert f"Pushed {checkpoint} to {hub.address}/org/shop, commit " in printed
        assert 'AutoModel.from_pretrained("org/shop")' in printed
        assert hub.repositories["models", "org/shop"].private

    def test_a_dataset_folder_is_private_until_asked_otherwise(self, hub, tmp_path, capsys):
        folder = build_synthetic(tmp_path / "data", n_users=20)
        main([str(folder), "org/walks"])
        assert hub.repositories["datasets", "org/walks"].private
        assert {"README.md", "catalog.parquet", "statistics.json"} <= set(hub.files("org/walks", kind="datasets"))
        main([str(folder), "org/open-walks", "--no-private"])
        assert not hub.repositories["datasets", "org/open-walks"].private
        assert 'load_dataset("org/open-walks")' in capsys.readouterr().out

    def test_a_metric(self, hub, capsys):
        main(["beyond_accuracy", "org/beyond_accuracy"])
        files = {"README.md", "app.py", "beyond_accuracy.py", "item_lists.py", "requirements.txt"}
        assert set(hub.files("org/beyond_accuracy", kind="spaces")) == files
        assert 'evaluate.load("org/beyond_accuracy")' in capsys.readouterr().out

    def test_a_failed_push_says_how_to_go_on(self, hub, checkpoint):
        hub.token = READ_TOKEN
        with pytest.raises(PushError) as error:
            main([str(checkpoint), "org/shop"])
        assert "answered 403" in str(error.value)
        assert f"Nothing is lost: {checkpoint} is complete" in str(error.value)
        assert f"hf-seqrec push {checkpoint} org/shop" in str(error.value)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["runs/none", "org/shop"], "`what` must be a checkpoint folder, a dataset folder or one of full_ranking"),
            (["runs/none", "no name"], "`repo_id` must be the name of a repository"),
            (["full_ranking", "org/other"], "expected 'org/full_ranking'"),
        ],
    )
    def test_what_cannot_be_pushed(self, hub, arguments, message):
        with pytest.raises(ValueError, match=message):
            main(arguments)
        assert hub.requests == []
