"""Raw ids in, raw ids out: against the model's own scores, and what is said where something was left out."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from hf_seqrec import Catalog, SessionStore
from hf_seqrec.inference.checks import NonFiniteScoresError
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
    monkeypatch.setattr("hf_seqrec.inference.recommendation.logger.warning", said.append)
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


def test_excluded_items(recommender, messages):
    everything = recommender.recommend(["id-3"], top_k=12)
    found = recommender.recommend(["id-3"], top_k=12, exclude=["id-7", "id-1", "x"])
    assert found == [best for best in everything if best.item_id not in ("id-7", "id-1")]
    assert not messages
    seen_too = recommender.recommend(["id-3"], top_k=12, exclude_seen=False, exclude=["id-7"])
    assert {best.item_id for best in seen_too} == {f"id-{row}" for row in range(1, 13)} - {"id-7"}
    popular = recommender.recommend([], top_k=2, exclude=["id-2"])
    assert [best.item_id for best in popular] == ["id-3", "id-1"]


def test_unknown_candidates_are_counted(recommender):
    for history in (["id-3"], []):
        (answer,) = recommender.recommend_many([history], candidates=["id-7", "x", "y"])
        assert answer.unknown_candidates == 2
        assert [best.item_id for best in answer.recommendations] == ["id-7"]


class TestHistories:
    @pytest.mark.parametrize(
        "make",
        [tuple, iter, np.array, pd.Series, pa.array, lambda ids: pa.chunked_array([ids[:1], ids[1:]])],
        ids=["tuple", "generator", "numpy", "pandas", "pyarrow", "pyarrow in chunks"],
    )
    def test_in_every_form(self, recommender, make):
        ids = ["id-3", "id-5"]
        expected = recommender.recommend(ids)
        assert recommender.recommend(make(ids)) == expected
        filters = {"candidates": ["id-1", "id-2"], "exclude": ["id-2", "id-4"]}
        in_this_form = {name: make(values) for name, values in filters.items()}
        assert recommender.recommend(ids, **in_this_form) == recommender.recommend(ids, **filters)

    @pytest.mark.parametrize(
        "make",
        [np.array, pa.array, pd.Series, iter, lambda lists: (np.array(ids) for ids in lists)],
        ids=["numpy", "pyarrow", "pandas", "generator", "generator of numpy"],
    )
    def test_many_in_every_form(self, recommender, make):
        lists = [["id-3", "id-5"], ["id-1", "id-4"]]
        assert recommender.recommend_many(make(lists)) == recommender.recommend_many(lists)

    @pytest.mark.parametrize("make", [np.array, pd.Series, pa.array])
    def test_integers(self, make):
        recommender = Recommender(small_model(13), Catalog.from_items([str(row) for row in range(1, 13)]))
        assert recommender.recommend(make([3, 5])) == recommender.recommend(["3", "5"])

    @pytest.mark.parametrize(
        ("history", "found"),
        [
            ("1193", r"got '1193'"),
            (1193, r"got 1193"),
            (None, r"got None"),
            ({"id-3": 1}, r"got \{'id-3': 1\}"),
            (["id-3", None], r"got None of type NoneType at position 1"),
            ([3.0, 5.0], r"got 3.0 of type float at position 0"),
            (np.array([3.0]), r"got 3.0 of type float at position 0"),
            (pd.Series(["id-3", None]), r"of type \w+ at position 1"),
            (pa.array(["id-3", None]), r"got None of type NoneType at position 1"),
            ([True], r"got True of type bool at position 0"),
            ([["id-3"]], r"got \['id-3'\] of type list at position 0"),
        ],
    )
    def test_that_are_none(self, recommender, history, found):
        with pytest.raises(TypeError, match=rf"`history` must be a list of raw item ids.*{found}"):
            recommender.recommend(history)
        with pytest.raises(TypeError, match=rf"`histories\[1\]` must be a list of raw item ids.*{found}"):
            recommender.recommend_many([["id-3"], history])
        if history is not None:
            with pytest.raises(TypeError, match=rf"`exclude` must be a list of raw item ids.*{found}"):
                recommender.recommend(["id-3"], exclude=history)

    def test_one_text_for_all(self, recommender):
        with pytest.raises(TypeError, match="`histories` must be a list of histories, got 'id-3'"):
            recommender.recommend_many("id-3")


@pytest.mark.parametrize("top_k", ["5", 5.0, None, True])
def test_top_k_that_is_no_integer(recommender, top_k):
    with pytest.raises(TypeError, match=r"`top_k` must be an integer, got"):
        recommender.recommend(["id-3"], top_k=top_k)
    assert len(recommender.recommend(["id-3"], top_k=np.int64(5))) == 5


class TestDamagedModels:
    @pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
    @pytest.mark.parametrize("make", [Recommender, SessionStore])
    def test_are_refused(self, value, make):
        model = small_model(13)
        with torch.no_grad():
            model.item_embeddings.weight[7, 2] = value
        message = (
            r"1 weights of `model` in item_embeddings.weight are NaN or infinite, row 7 first.* training diverged"
        )
        with pytest.raises(ValueError, match=message):
            make(model, walks().catalog)

    def test_large_weights_are_none(self):
        """Their sum is infinite, they are not."""
        model = small_model(13)
        with torch.no_grad():
            model.item_embeddings.weight[1:].fill_(3e38)
        Recommender(model, walks().catalog)

    def test_scores_are_checked(self, recommender):
        """The model may have trained on, and diverged, since."""
        store = SessionStore(recommender.model, recommender.catalog)
        store.session("ann").add("id-3")
        with torch.no_grad():
            recommender.model.item_embeddings.weight[7] = torch.nan
        message = "The scores of 1 of the 1 users of this batch are NaN or infinite.*training diverged"
        for recommend in (lambda: recommender.recommend(["id-3"]), lambda: store.recommend_many(["ann"])):
            with pytest.raises(NonFiniteScoresError, match=message):
                recommend()


def test_a_catalog_in_another_order(recommender):
    model, catalog = small_model(13), recommender.catalog
    model.config.catalog_fingerprint = catalog.fingerprint()
    Recommender(model, catalog)
    reversed_ = Catalog.from_items(catalog.item_ids.to_pylist()[::-1])
    for make in (Recommender, SessionStore):
        with pytest.raises(ValueError, match=r"`catalog` is not the model's"):
            make(model, reversed_)
