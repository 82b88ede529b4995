import json

import pytest
import torch
from transformers import AutoConfig, AutoModel, BertConfig, BertModel

from hf_seqrec.checkpoints.load import load_checkpoint
from hf_seqrec.data.catalog import Catalog
from tests.helpers import small_model, walks


@pytest.fixture
def folder(tmp_path):
    model = small_model(13)
    model.save_pretrained(tmp_path)
    walks().catalog.save(tmp_path)
    return tmp_path


def test_model_and_catalog_come_back(folder):
    model, catalog = load_checkpoint(folder)
    assert not model.training
    assert catalog.describe([3]) == ["Item 3"]
    history = torch.tensor([[1, 2, 3]])
    assert torch.equal(model(history).logits, small_model(13).eval()(history).logits)


def test_not_a_checkpoint(tmp_path):
    with pytest.raises(ValueError, match=r"is not a checkpoint folder: it has no config\.json"):
        load_checkpoint(tmp_path)


def test_damaged_configuration(folder):
    (folder / "config.json").write_text('{"model_type": "mamba4')
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        load_checkpoint(folder)


def test_configuration_out_of_range(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 0}))
    with pytest.raises(ValueError, match=r"`hidden_size` must be at least 1"):
        load_checkpoint(folder)


def test_a_foreign_model(tmp_path):
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
    BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"holds a 'bert' model, expected one of .*mamba4rec"):
        load_checkpoint(tmp_path)


def test_weights_cut_short(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="cut short or damaged"):
        load_checkpoint(folder)


def test_weights_missing(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"weights in .* cannot be read"):
        load_checkpoint(folder)


def test_weights_of_fewer_layers(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    with pytest.raises(ValueError, match=r"lack layers\.1\."):
        load_checkpoint(folder)


def test_weights_of_another_width(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 8}))
    with pytest.raises(ValueError, match=r"do not fit the configuration in item_embeddings\.weight"):
        load_checkpoint(folder)


def test_the_catalog_of_another_model(folder):
    Catalog.from_items(["a", "b"]).save(folder)
    with pytest.raises(ValueError, match=r"catalog\.parquet has 2 items, but the model has 12"):
        load_checkpoint(folder)


def test_the_same_items_in_another_order(tmp_path):
    catalog = walks().catalog
    small_model(13, catalog_fingerprint=catalog.fingerprint()).save_pretrained(tmp_path)
    catalog.save(tmp_path)
    assert load_checkpoint(tmp_path).model.config.catalog_fingerprint == catalog.fingerprint()
    Catalog.from_items(catalog.item_ids.to_pylist()[::-1]).save(tmp_path)
    with pytest.raises(ValueError, match=r"catalog\.parquet is not the model's: it has as many items"):
        load_checkpoint(tmp_path)


def test_no_catalog(folder):
    (folder / "catalog.parquet").unlink()
    with pytest.raises(FileNotFoundError, match=r"catalog\.parquet"):
        load_checkpoint(folder)


@pytest.mark.parametrize("model_type", ["mamba4rec", "sasrec"])
def test_attention_may_be_chosen_for_any_model(tmp_path, model_type):
    config = AutoConfig.for_model(model_type, vocab_size=13, hidden_size=16)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    Catalog.from_items([f"id-{row}" for row in range(1, 13)]).save(tmp_path)
    for implementation in ("eager", "sdpa"):
        model, _ = load_checkpoint(tmp_path, attn_implementation=implementation)
        if model_type == "sasrec":
            assert model.config._attn_implementation == implementation
