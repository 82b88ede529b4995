"""`model.push_to_hub` against a local Hub; tests/test_hub.py loads what it pushed in other processes."""

import logging

import huggingface_hub
import pytest
import torch
from huggingface_hub import HfApi, ModelCard
from huggingface_hub.errors import HFValidationError
from transformers import AutoModel

import hf_seqrec.models.push_to_hub as sharing
from hf_seqrec.checkpoints.card import write_model_card
from hf_seqrec.data.catalog import Catalog
from tests.checkpoints.test_card import RESULTS
from tests.helpers import small_model, walks
from tests.hub_server import TOKEN, HubServer

NDCG = f"| {RESULTS['metrics']['test_ndcg@10']:.4f} |"


@pytest.fixture
def hub(monkeypatch):
    with HubServer() as server:
        for module in (sharing, huggingface_hub):
            monkeypatch.setattr(module, "HfApi", lambda token: HfApi(server.address, token=token or TOKEN))
        yield server


@pytest.fixture
def loaded(tmp_path):
    model = small_model(13)
    model.save_pretrained(tmp_path)
    walks().catalog.save(tmp_path)
    write_model_card(tmp_path, model.config, RESULTS)
    return AutoModel.from_pretrained(tmp_path)


def test_a_loaded_model_brings_its_code_catalog_and_card(hub, loaded, tmp_path, caplog):
    commit = loaded.push_to_hub("org/walks", private=True, tags=["films"], commit_message="Share")
    assert hub.repositories["models", "org/walks"].private
    assert commit.commit_message == "Share"
    files = hub.files("org/walks")
    code = {path.name for path in tmp_path.glob("*.py")}
    assert set(files) == {"config.json", "model.safetensors", "catalog.parquet", "README.md"} | code
    assert {"modeling_mamba4rec.py", "push_to_hub.py"} <= code
    assert files["model.safetensors"] == (tmp_path / "model.safetensors").read_bytes()
    card = ModelCard(files["README.md"].decode())
    assert NDCG in card.text
    assert 'Recommender.from_pretrained("org/walks")' in card.text
    assert card.data.tags[-1] == "films"
    assert "without a catalog" not in caplog.text


def test_numbers_of_other_weights_are_not_claimed(hub, loaded):
    with torch.no_grad():
        loaded.item_embeddings.weight[1] += 1
    loaded.push_to_hub("org/walks")
    files = hub.files("org/walks")
    assert NDCG.encode() not in files["README.md"]
    assert b"Nothing was measured of it." in files["README.md"]
    # The rows stand for the same items all the same.
    assert "catalog.parquet" in files


def test_a_card_that_is_there_stays_where_there_is_none_to_bring(hub, loaded, tmp_path):
    loaded.push_to_hub("org/walks")
    (tmp_path / "README.md").unlink()
    loaded.push_to_hub("org/walks")
    assert NDCG.encode() in hub.files("org/walks")["README.md"]


def test_a_model_of_nowhere_says_what_it_lacks(hub, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    small_model(13).push_to_hub("org/walks", revision="try")
    assert "pushed without a catalog" in caplog.text
    assert "catalog.parquet" not in hub.files("org/walks", "try")
    walks().catalog.push_to_hub("org/walks", revision="try")
    assert set(hub.files("org/walks", "try")) >= {"catalog.parquet", "config.json", "model.safetensors"}
    assert hub.files("org/walks") == {}


def test_the_catalog_of_fewer_items_is_not_brought(hub, loaded, tmp_path):
    loaded.resize_token_embeddings(20)
    loaded.push_to_hub("org/walks")
    assert "catalog.parquet" not in hub.files("org/walks")


def test_what_is_no_name_of_a_repository(hub):
    with pytest.raises(HFValidationError, match="Repo id must"):
        small_model(13).push_to_hub("my model")
    with pytest.raises(HFValidationError, match="Repo id must"):
        Catalog.from_items(["a"]).push_to_hub("my model")
    assert hub.requests == []
