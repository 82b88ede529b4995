"""Checkpoints that version 0.1.0 wrote before its files were moved to their rooms load, and score the same."""

import json
from pathlib import Path

import pytest
import torch

import hf_seqrec
from hf_seqrec import Recommender, load_checkpoint

FOLDER = Path(__file__).parents[1] / "fixtures/before_the_rooms"
EARLIER = json.loads((FOLDER / "scores.json").read_text(encoding="utf-8"))


def test_all_of_that_time_are_there():
    assert set(EARLIER["scores"]) == {path.name for path in FOLDER.iterdir() if path.is_dir()}
    assert set(EARLIER["scores"]) <= set(hf_seqrec.MODEL_TYPES)


@pytest.mark.parametrize("model_type", EARLIER["scores"])
def test_scores_are_those_of_then(model_type):
    model, catalog = load_checkpoint(FOLDER / model_type)
    assert catalog.n_items == 12
    with torch.no_grad():
        scores = model(torch.tensor(EARLIER["histories"])).logits[:, 1:].double()
    torch.testing.assert_close(scores, torch.tensor(EARLIER["scores"][model_type]).double(), rtol=1e-6, atol=1e-6)
    # Without a fingerprint in the configuration, the catalog of the same size is taken for the model's.
    assert model.config.catalog_fingerprint is None
    assert len(Recommender(model, catalog).recommend(["i2", "i0"], top_k=3)) == 3
