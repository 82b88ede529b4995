"""Raw ids in, raw ids out: against the model's own scores, and what is said where something was left out."""

import numpy as np
import pytest
import torch

from hf_seqrec import Catalog
from hf_seqrec.inference.recommender import Recommender
from tests.helpers import small_model, walks


@pytest.fixture
def recommender():
    catalog = Catalog.from_items(
        [f"id-{row}" for row in range(1, 13)],
        count=[3, 9, 9, 1, 1, 1, 1, 1, 1, 1, 1, 0],
        title=[f"Item {row}" if row != 5 else None for row in range(1, 13)],
    )
    return Recommender(small_model(13), catalog)


@pytest.fixture
def messages(monkeypatch):
    said: list[str] = []
    for module in ("recommendation", "recommender"):
        monkeypatch.setattr(f"hf_seqrec.inference.{module}.logger.warning", said.append)
    return said


def scores_of(recommender, *rows):
    with torch.no_grad():
        return recommender.model(torch.tensor([rows])).logits[0]


def test_best_first_with_titles(recommender):
    found = recommender.recommend(["id-3", "id-5"], top_k=4)
    scores = scores_of(recommender, 3, 5)
    order = [row for row in scores.argsort(descending=True).tolist() if row not in (0, 3, 5)][:4]
    assert [best.item_id for best in found] == [f"id-{row}" for row in order]
    assert [best.title for best in found] == [f"Item {row}" for row in order]
    np.testing.assert_allclose([best.score for best in found], scores[order], rtol=1e-5)


def test_seen_items_on_request(recommender):
    found = recommender.recommend(["id-3", "id-5"], top_k=12, exclude_seen=False)
    assert {best.item_id for best in found} == {f"id-{row}" for row in range(1, 13)}
    assert next(best for best in found if best.item_id == "id-5").title == "id-5"


def test_fewer_where_fewer_are_left(recommender):
    assert len(recommender.recommend(["id-3", "id-5", "id-3"], top_k=12)) == 10
    assert recommender.recommend([f"id-{row}" for row in range(1, 13)], top_k=3) == []


def test_candidates(recommender, messages):
    scores = scores_of(recommender, 3)
    found = recommender.recommend(["id-3"], candidates=["id-7", "id-3", "id-1", "x"])
    assert [best.item_id for best in found] == sorted(("id-1", "id-7"), key=lambda name: -scores[int(name[3:])])
    assert messages == ["1 of 4 candidates are not in this model's catalog and were left out."]


def test_unknown_items_are_counted_and_left_out(recommender, messages):
    assert recommender.recommend(["x", "id-3", "y"]) == recommender.recommend(["id-3"])
    assert messages == ["2 of 3 items are not in this model's catalog and were left out."]


def test_popular_items_where_nothing_is_known(recommender, messages):
    found = recommender.recommend(["x"], top_k=3)
    assert [(best.item_id, best.score) for best in found] == [("id-2", 9.0), ("id-3", 9.0), ("id-1", 3.0)]
    assert messages[1:] == ["Recommending the most popular items: the history has no item of this model's catalog."]
    del messages[:]
    assert [best.item_id for best in recommender.recommend([], top_k=1, candidates=["id-12", "id-1"])] == ["id-1"]
    assert messages == ["Recommending the most popular items: the history is empty."]


def test_many_at_once_are_as_one_by_one(recommender):
    histories = [["id-3"], [], ["id-1", "id-2", "q"], [f"id-{row}" for row in range(1, 11)], ["id-4"] * 50]
    answers = recommender.recommend_many(histories, top_k=5)
    assert [answer.unknown_items for answer in answers] == [0, 0, 1, 0, 0]
    assert [answer.is_popularity for answer in answers] == [False, True, False, False, False]
    for history, answer in zip(histories, answers, strict=True):
        expected = recommender.recommend(history, top_k=5)
        assert [best.item_id for best in answer.recommendations] == [best.item_id for best in expected]
        np.testing.assert_allclose(
            [best.score for best in answer.recommendations], [best.score for best in expected], rtol=1e-4
        )
    assert len(answers[3].recommendations) == 2


def test_small_batches_give_the_same(recommender, monkeypatch):
    histories = [["id-3"] * length for length in (1, 9, 2, 8)]
    expected = recommender.recommend_many(histories)
    monkeypatch.setattr("hf_seqrec.inference.recommender._POSITIONS_AT_ONCE", 10)
    found = recommender.recommend_many(histories)
    assert [[best.item_id for best in answer.recommendations] for answer in found] == [
        [best.item_id for best in answer.recommendations] for answer in expected
    ]


@pytest.mark.parametrize("top_k", [0, 13])
def test_impossible_top_k(recommender, top_k):
    with pytest.raises(ValueError, match=r"`top_k` must be between 1 and the catalog's 12 items"):
        recommender.recommend(["id-3"], top_k=top_k)


def test_no_known_candidate(recommender):
    with pytest.raises(ValueError, match=r"`candidates` must be items of .* none of the 2 given is"):
        recommender.recommend(["id-3"], candidates=["x", "y"])


def test_another_models_catalog():
    with pytest.raises(ValueError, match=r"`catalog` has 2 items, but the model has 12"):
        Recommender(small_model(13), Catalog.from_items(["a", "b"]))


def test_the_same_items_in_another_order():
    catalog = walks().catalog
    model = small_model(13, catalog_fingerprint=catalog.fingerprint())
    assert Recommender(model, catalog).recommend(["id-3"], top_k=1)
    with pytest.raises(ValueError, match="`catalog` is not the model's"):
        Recommender(model, Catalog.from_items(catalog.item_ids.to_pylist()[::-1]))


def test_from_a_folder(tmp_path):
    small_model(13).save_pretrained(tmp_path)
    walks().catalog.save(tmp_path)
    recommender = Recommender.from_pretrained(tmp_path)
    assert not recommender.model.training
    assert recommender.recommend(["id-3"], top_k=1)[0].item_id != "id-3"
