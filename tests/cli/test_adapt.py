import json

import pytest
import torch

from hf_seqrec.checkpoints.load import load_checkpoint
from hf_seqrec.cli.adapt import main
from hf_seqrec.data.catalog import Catalog
from tests.helpers import small_model, walks


@pytest.fixture
def checkpoint(tmp_path):
    """Save a model of the walks' twelve items but the last, and the folder of a dataset that has it."""
    known = Catalog.from_items(walks().catalog.item_ids.to_pylist()[:11])
    small_model(12).save_pretrained(tmp_path / "old")
    known.save(tmp_path / "old")
    (tmp_path / "old/training_args.json").write_text('{"max_length": 7}')
    walks().catalog.save(tmp_path / "data")
    return tmp_path / "old"


def test_extends_a_checkpoint(checkpoint, tmp_path, capsys):
    output = tmp_path / "deep/new"
    main([str(checkpoint), "--catalog", str(tmp_path / "data"), "--output", str(output)])
    assert "11 of the 11 items of the model are in the new catalog, 1 items are new" in capsys.readouterr().out
    model, catalog = load_checkpoint(output)
    old, _ = load_checkpoint(checkpoint)
    assert catalog.titles[11] == "Item 12"
    history = torch.tensor([[1, 2, 3]])
    # Not all bits: matrices of another size may be multiplied in another order.
    torch.testing.assert_close(model(history).logits[:, :12], old(history).logits)
    assert json.loads((output / "training_args.json").read_text()) == {"max_length": 7}
    assert "12 items" in (output / "README.md").read_text()
    assert json.loads((output / "adaptation.json").read_text()) == {
        "checkpoint": str(checkpoint),
        "n_known": 11,
        "n_new": 1,
        "n_vanished": 0,
        "n_kept_vanished": 0,
        "new_items": "mean",
        "seed": 0,
    }


def test_says_what_is_wrong(checkpoint, tmp_path):
    data, new = str(tmp_path / "data"), str(tmp_path / "new")
    with pytest.raises(FileExistsError, match="`output` must be new or an empty folder, but there is something at"):
        main([str(checkpoint), "--catalog", data, "--output", str(checkpoint)])
    with pytest.raises(FileNotFoundError, match="must be a dataset folder, with"):
        main([str(checkpoint), "--catalog", data, "--output", new, "--new_items", "cooccurrence"])
    with pytest.raises(ValueError, match=r"is not a checkpoint folder: it has no config\.json"):
        main([data, "--catalog", data, "--output", new])
    Catalog.from_items(["1"]).save(tmp_path / "foreign")
    with pytest.raises(ValueError, match="share no raw item id"):
        main([str(checkpoint), "--catalog", str(tmp_path / "foreign"), "--output", new])
    Catalog.from_items(["x", "d", "y", "b"]).save(checkpoint)
    with pytest.raises(ValueError, match="has 4 items, but the model has 11"):
        main([str(checkpoint), "--catalog", data, "--output", new])
    assert not (tmp_path / "new").exists()
