"""Approximate search finds what exact search finds, and an index of another model is refused."""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModel, set_seed

import hf_seqrec
from hf_seqrec.data.catalog import Catalog
from hf_seqrec.models.item_scores import top_k_items

pytest.importorskip("faiss", reason="needs the extra ann")

from hf_seqrec.cli.index import main
from hf_seqrec.inference.recommender import Recommender
from hf_seqrec.inference.search_index import (
    INDEX_DESCRIPTION,
    INDEX_FILE,
    KINDS,
    SearchIndex,
    fingerprint,
    history_states,
    recall,
)

N_ITEMS = 300
# As much as there is: every candidate is looked at.
ALL = 10_000


def model_of(model_type="gru4rec", seed=0):
    set_seed(seed)
    vocab_size = hf_seqrec.config_class(model_type).vocab_size_for(N_ITEMS)
    model = AutoModel.from_config(AutoConfig.for_model(model_type, vocab_size=vocab_size, hidden_size=16))
    with torch.no_grad():
        model.item_embeddings.weight.mul_(50)
        if model_type == "bert4rec":
            model.output_bias.normal_(std=3.0)
    return model.eval()


def histories(rows=6, length=9):
    input_ids = torch.randint(1, N_ITEMS + 1, (rows, length), generator=torch.Generator().manual_seed(1))
    input_ids[0, 4:] = 0
    input_ids[1, :5] = 0
    return input_ids


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model_type", ["gru4rec", "bert4rec", "sasrec"])
@pytest.mark.parametrize("exclude_seen", [True, False])
def test_with_all_effort_it_recommends_what_the_model_does(kind, model_type, exclude_seen):
    model = model_of(model_type)
    index = SearchIndex.build(model, kind)
    expected_rows, expected_scores = model.recommend(histories(), top_k=7, exclude_seen=exclude_seen)
    rows, scores = index.recommend(model, histories(), top_k=7, exclude_seen=exclude_seen, effort=ALL)
    assert torch.equal(rows, expected_rows)
    torch.testing.assert_close(scores, expected_scores, rtol=1e-4, atol=1e-4)


def test_more_effort_finds_more():
    model = model_of()
    index = SearchIndex.build(model, "ivf")
    states = torch.randn(64, 16, generator=torch.Generator().manual_seed(2))
    exact, _ = top_k_items(states, model.output_items()[0], 10)
    little, much = (
        recall(index.search(states, 10, effort=effort)[0], exact) for effort in (1, index.faiss_index.nlist)
    )
    assert little < much == 1.0


def test_recall_counts_what_was_found():
    assert recall(torch.tensor([[1, 2, 0, 0], [9, 8, 7, 6]]), torch.tensor([[2, 3, 1, 4], [6, 7, 8, 9]])) == 0.75


def test_items_of_the_history_are_left_out_however_many():
    model = model_of()
    index = SearchIndex.build(model)
    seen = torch.arange(1, N_ITEMS - 4)[None]
    rows, scores = index.search(torch.randn(1, 16), 8, excluded_rows=seen, effort=ALL)
    # Five items are left.
    assert sorted(rows[0, :5].tolist()) == list(range(N_ITEMS - 4, N_ITEMS + 1))
    assert rows[0, 5:].tolist() == [0, 0, 0]
    assert torch.isneginf(scores[0, 5:]).all()
    assert (scores[0, :4] >= scores[0, 1:5]).all()


def test_more_than_the_catalog_gives_all_of_it():
    rows, scores = SearchIndex.build(model_of()).search(torch.randn(2, 16), N_ITEMS + 3, effort=ALL)
    assert sorted(rows[0].tolist()) == [0, 0, 0, *range(1, N_ITEMS + 1)]
    assert torch.isneginf(scores[:, -3:]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_index_searches_as_before(kind, tmp_path):
    model = model_of()
    index = SearchIndex.build(model, kind)
    assert index.save(tmp_path).name == INDEX_FILE
    loaded = SearchIndex.load(tmp_path, model)
    assert loaded.kind == kind
    states, _ = history_states(model, histories())
    for before, after in zip(index.search(states, 5), loaded.search(states, 5), strict=True):
        assert torch.equal(before, after)
    assert sorted(path.name for path in tmp_path.iterdir()) == [INDEX_FILE, INDEX_DESCRIPTION]


def test_an_index_of_other_weights_is_refused(tmp_path):
    model = model_of()
    SearchIndex.build(model).save(tmp_path)
    with torch.no_grad():
        model.item_embeddings.weight[7, 3] += 1
    with pytest.raises(ValueError, match=r"built from other item embeddings .*Build it again"):
        SearchIndex.load(tmp_path, model)


def test_the_bias_is_in_the_fingerprint():
    model = model_of("bert4rec")
    before = fingerprint(model)
    assert fingerprint(model_of("bert4rec")) == before
    with torch.no_grad():
        model.output_bias[5] += 1
    assert fingerprint(model) != before


def test_what_is_not_a_whole_index_is_refused(tmp_path):
    model = model_of()
    with pytest.raises(FileNotFoundError, match="Build it with"):
        SearchIndex.load(tmp_path, model)
    path = SearchIndex.build(model).save(tmp_path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be read"):
        SearchIndex.load(tmp_path, model)
    (tmp_path / INDEX_DESCRIPTION).write_text("{}")
    with pytest.raises(ValueError, match=r"search_index.json is damaged"):
        SearchIndex.load(tmp_path, model)


def test_unknown_kinds_and_models_of_another_size_are_refused():
    with pytest.raises(ValueError, match="`kind` must be one of hnsw, ivf"):
        SearchIndex.build(model_of(), "tree")
    set_seed(0)
    other = AutoModel.from_config(AutoConfig.for_model("gru4rec", vocab_size=12, hidden_size=16))
    with pytest.raises(ValueError, match="The index has 300 items"):
        SearchIndex.build(model_of()).recommend(other, torch.tensor([[1]]))


def test_command_line_builds_beside_the_checkpoint_and_measures(tmp_path, capsys):
    model = model_of()
    model.save_pretrained(tmp_path)
    Catalog.from_items([f"id-{row}" for row in range(1, N_ITEMS + 1)]).save(tmp_path)
    main([str(tmp_path), "--effort", "400"])
    assert "hnsw of 300 items" in (printed := capsys.readouterr().out)
    assert "recall@10 1.000 at effort 400" in printed
    assert json.loads((tmp_path / INDEX_DESCRIPTION).read_text())["n_items"] == N_ITEMS
    SearchIndex.load(tmp_path, model)


class TestRecommender:
    """Raw ids in and out through the index: what it finds, and where it does not find enough."""

    CATALOG = Catalog.from_items([f"id-{row}" for row in range(1, N_ITEMS + 1)])

    @pytest.mark.parametrize("kind", KINDS)
    def test_with_all_effort_the_answers_are_exact(self, kind):
        model = model_of()
        histories = [["id-3", "id-7"], ["x"], ["id-9"] * 30]
        exact = Recommender(model, self.CATALOG)
        indexed = Recommender(model, self.CATALOG, SearchIndex.build(model, kind), effort=ALL)
        for filters in ({}, {"exclude_seen": False}, {"exclude": ["id-5", "id-6"]}, {"candidates": ["id-5", "id-6"]}):
            for found, expected in zip(
                indexed.recommend_many(histories, **filters), exact.recommend_many(histories, **filters), strict=True
            ):
                assert [best.item_id for best in found.recommendations] == [
                    best.item_id for best in expected.recommendations
                ]
                assert found.source == expected.source

    def test_where_the_index_finds_too_few_all_items_are_scored(self):
        model = model_of()
        index = SearchIndex.build(model, "ivf")
        assert (index.search(torch.randn(1, 16), 200, effort=1)[0] == 0).any()
        indexed = Recommender(model, self.CATALOG, index, effort=1)
        found = indexed.recommend(["id-3"], top_k=200)
        expected = Recommender(model, self.CATALOG).recommend(["id-3"], top_k=200)
        assert [best.item_id for best in found] == [best.item_id for best in expected]

    def test_the_index_is_searched(self, monkeypatch):
        model = model_of()
        indexed = Recommender(model, self.CATALOG, SearchIndex.build(model))
        monkeypatch.setattr(indexed, "_score", lambda *_: 1 / 0)
        assert len(indexed.recommend(["id-3"])) == 10

    def test_from_a_folder(self, tmp_path):
        model = model_of()
        model.save_pretrained(tmp_path)
        self.CATALOG.save(tmp_path)
        with pytest.raises(FileNotFoundError, match="Build it with `hf-seqrec index`"):
            Recommender.from_pretrained(tmp_path, index=True)
        SearchIndex.build(model, "ivf").save(tmp_path)
        assert Recommender.from_pretrained(tmp_path, index=True).index.kind == "ivf"
        assert Recommender.from_pretrained(tmp_path).index is None

    def test_the_index_of_another_model(self):
        with pytest.raises(ValueError, match=r"`index` was built from other item embeddings"):
            Recommender(model_of(), self.CATALOG, SearchIndex.build(model_of(seed=1)))
