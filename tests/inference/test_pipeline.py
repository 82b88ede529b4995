import json
import subprocess
import sys

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from huggingface_hub import HfApi
from transformers import AutoModel, BertConfig, BertModel, pipeline
from transformers.pipelines.pt_utils import KeyDataset

from hf_seqrec.data.catalog import Catalog
from tests.helpers import small_model
from tests.hub_server import TOKEN, HubServer

CATALOG = Catalog.from_items(
    [f"id-{row}" for row in range(1, 13)],
    # Item 7 is the most popular, then 12, 11, ...
    count=[100 if row == 7 else row for row in range(1, 13)],
    title=[f"Item {row}" for row in range(1, 13)],
    genre=["odd" if row % 2 else "even" for row in range(1, 13)],
)
HISTORIES = [["id-3", "id-4", "id-5"], ["id-9"], ["id-1", "id-2", "id-1", "id-11"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    small_model(13).save_pretrained(folder)
    CATALOG.save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def recommend(folder):
    return pipeline("sequential-recommendation", model=folder, device="cpu")


def ids(recommended):
    return [item["item_id"] for item in recommended]


class TestAnswers:
    def test_are_what_the_model_recommends(self, recommend):
        model = small_model(13)
        for history, answer in zip(HISTORIES, recommend(HISTORIES, top_k=4), strict=True):
            rows, scores = model.recommend(torch.from_numpy(CATALOG.encode(history))[None], top_k=4)
            assert ids(answer) == CATALOG.decode(rows[0])
            assert [item["score"] for item in answer] == pytest.approx(scores[0].tolist(), abs=1e-6)

    def test_have_titles_and_metadata(self, recommend):
        for item in recommend(HISTORIES[0], top_k=9):
            row = int(item["item_id"].removeprefix("id-"))
            assert list(item) == ["item_id", "score", "title", "genre", "source", "recommended_by"]
            assert item["source"] == "model"
            assert item["title"] == f"Item {row}"
            assert item["genre"] == ("odd" if row % 2 else "even")
            assert item["recommended_by"] == "model"

    def test_one_history_and_batches_in_every_form(self, recommend):
        one, batch = recommend(HISTORIES[0]), recommend(HISTORIES)
        assert ids(one) == ids(batch[0])
        assert ids(recommend({"history": HISTORIES[0]})) == ids(one)
        assert ids(recommend(np.array(HISTORIES[0]))) == ids(one)
        for same in (
            [{"history": history} for history in HISTORIES],
            tuple(HISTORIES),
            [np.array(history) for history in HISTORIES],
        ):
            assert [ids(answer) for answer in recommend(same)] == [ids(answer) for answer in batch]
        for make in (pd.Series, pa.array):
            assert ids(recommend(make(HISTORIES[0]))) == ids(one)
            assert [ids(answer) for answer in recommend(make(HISTORIES))] == [ids(answer) for answer in batch]
        # Integers are raw ids too.
        numbers = Catalog.from_items([str(row) for row in range(1, 13)])
        of_numbers = pipeline("sequential-recommendation", model=small_model(13), catalog=numbers, device="cpu")
        assert ids(of_numbers([3, 4, 5])) == [item_id.removeprefix("id-") for item_id in ids(one)]

    def test_any_batch_size_gives_the_same(self, recommend):
        together = recommend(HISTORIES, batch_size=3)
        for batch_size in (1, 2):
            for answer, other in zip(recommend(HISTORIES, batch_size=batch_size), together, strict=True):
                assert ids(answer) == ids(other)

    def test_generators_are_read_as_they_are_needed(self, recommend):
        read = []

        def histories():
            for number in range(5):
                read.append(number)
                yield HISTORIES[number % 3]

        answers = recommend(histories(), batch_size=2)
        assert ids(next(answers)) == ids(recommend(HISTORIES[0]))
        assert read == [0, 1]
        assert len(list(answers)) == 4

    def test_datasets(self, recommend):
        expected = [ids(answer) for answer in recommend(HISTORIES)]
        dataset = datasets.Dataset.from_dict({"history": HISTORIES})
        for inputs in (dataset, KeyDataset(dataset, "history"), dataset["history"]):
            assert [ids(answer) for answer in recommend(inputs, batch_size=2)] == expected

    def test_seen_items_on_request(self, recommend):
        assert set(ids(recommend(HISTORIES[0], top_k=12, exclude_seen=False))) == set(CATALOG.item_ids.to_pylist())
        assert not set(ids(recommend(HISTORIES[0], top_k=12))) & set(HISTORIES[0])

    def test_candidates(self, recommend):
        assert set(ids(recommend(HISTORIES[0], candidates=["id-7", "id-8", "id-3"]))) == {"id-7", "id-8"}
        own = [{"history": HISTORIES[0], "candidates": ["id-1"]}, {"history": HISTORIES[1]}]
        answers = recommend(own, candidates=["id-6", "id-8"])
        assert ids(answers[0]) == ["id-1"]
        assert set(ids(answers[1])) == {"id-6", "id-8"}

    def test_excluded_items(self, recommend):
        everything = ids(recommend(HISTORIES[0], top_k=12))
        found = ids(recommend(HISTORIES[0], top_k=12, exclude=["id-7", "x"]))
        assert found == [item_id for item_id in everything if item_id != "id-7"]
        own = [{"history": HISTORIES[0], "exclude": ["id-1"]}, {"history": HISTORIES[0]}]
        first, second = (set(everything) - set(ids(answer)) for answer in recommend(own, top_k=12, exclude=["id-7"]))
        assert (first, second) == ({"id-1"}, {"id-7"})

    def test_options_of_the_pipeline(self, folder):
        recommend = pipeline("sequential-recommendation", model=folder, device="cpu", top_k=2, batch_size=2)
        assert [len(answer) for answer in recommend(HISTORIES)] == [2, 2, 2]
        assert len(recommend(HISTORIES[0], top_k=3)) == 3


class TestUnknownItems:
    def test_are_counted_and_left_out(self, recommend, caplog):
        answers = recommend([["id-3", "x", "id-4", "y", "id-5"], HISTORIES[1], ["id-9", "z"]])
        assert ids(answers[0]) == ids(recommend(HISTORIES[0]))
        assert "3 of 8 items are not in this model's catalog and were left out, of 2 of 3 histories." in caplog.text

    def test_only_unknown_items_or_none_at_all_give_what_is_popular(self, recommend, caplog):
        for nothing in (["x", "y"], []):
            caplog.clear()
            answer = recommend(nothing, top_k=3)
            assert [(item["item_id"], item["score"]) for item in answer] == [
                ("id-7", 100),
                ("id-12", 12),
                ("id-11", 11),
            ]
            assert {item["recommended_by"] for item in answer} == {"popularity"}
            assert "1 of 1 histories have no item of this model's catalog" in caplog.text

    def test_among_others(self, recommend):
        answers = recommend([HISTORIES[0], ["x"], HISTORIES[1]], top_k=2)
        assert [answer[0]["recommended_by"] for answer in answers] == ["model", "popularity", "model"]

    def test_candidates(self, recommend, caplog):
        assert ids(recommend(HISTORIES[0], candidates=["id-7", "x"])) == ["id-7"]
        assert "1 of 2 candidates are not in this model's catalog" in caplog.text
        with pytest.raises(ValueError, match="`candidates` must be items of this model's catalog"):
            recommend(HISTORIES[0], candidates=["x"])


class TestMaking:
    def test_saved_and_opened_again(self, recommend, tmp_path):
        recommend.save_pretrained(tmp_path)
        again = pipeline("sequential-recommendation", model=str(tmp_path), device="cpu")
        assert again(HISTORIES[0]) == recommend(HISTORIES[0])
        assert "custom_pipelines" not in (tmp_path / "config.json").read_text()

    def test_a_model_object(self, recommend, folder):
        of_object = pipeline("sequential-recommendation", model=small_model(13), catalog=CATALOG, device="cpu")
        assert ids(of_object(HISTORIES[0])) == ids(recommend(HISTORIES[0]))
        loaded = pipeline("sequential-recommendation", model=AutoModel.from_pretrained(folder), device="cpu")
        assert loaded.catalog.item_ids.equals(CATALOG.item_ids)

    def test_a_model_of_another_package(self, tmp_path):
        config = BertConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9
        )
        BertModel(config).save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="got a 'bert' model"):
            pipeline("sequential-recommendation", model=str(tmp_path), device="cpu")

    def test_catalogs_that_do_not_fit(self, folder):
        model = small_model(13)
        with pytest.raises(
            ValueError, match="`catalog` must be given with a model that does not come from a checkpoint"
        ):
            pipeline("sequential-recommendation", model=model, device="cpu")
        with pytest.raises(ValueError, match="`catalog` has 2 items, but the model has 12"):
            pipeline("sequential-recommendation", model=model, catalog=Catalog.from_items(["a", "b"]), device="cpu")

    def test_a_model_of_the_hub(self, recommend, folder, tmp_path):
        code = "import json, hf_seqrec; from transformers import pipeline; recommend = pipeline("
        code += "'sequential-recommendation', model='org/shop', revision='first', device='cpu')\n"
        code += f"print(json.dumps(recommend({HISTORIES[0]})))"
        with HubServer() as server:
            api = HfApi(server.address, token=TOKEN)
            api.create_repo("org/shop")
            api.upload_folder(repo_id="org/shop", folder_path=folder)
            api.create_branch("org/shop", branch="first")
            # What was pushed later belongs to another model.
            Catalog.from_items(["a"]).save(tmp_path)
            api.upload_folder(repo_id="org/shop", folder_path=tmp_path)
            done = subprocess.run(
                [sys.executable, "-c", code],
                capture_output=True,
                text=True,
                env=server.environment(tmp_path / "cache", TOKEN),
                check=False,
            )
        assert done.returncode == 0, done.stderr
        assert ids(json.loads(done.stdout.splitlines()[-1])) == ids(recommend(HISTORIES[0]))

    @pytest.mark.parametrize(
        "imports",
        [
            "import hf_seqrec\nfrom transformers import pipeline",
            "from transformers import pipeline\nimport hf_seqrec",
            "import hf_seqrec.inference.pipeline\nfrom transformers import pipeline",
        ],
    )
    def test_is_known_in_any_order_of_imports(self, imports):
        code = f"{imports}\nfrom transformers.pipelines import check_task\n"
        code += "print(check_task('sequential-recommendation')[0])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.stdout.split() == ["sequential-recommendation"], done.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        *("id-3", 3, None, [["id-3", 1.5]], [["id-3"], None], {"items": ["id-3"]}, [{"history": "id-3"}]),
        *(["id-3", None], [None], np.array([3.0]), pd.Series([3.0]), {"history": None}),
    ],
    ids=repr,
)
def test_what_are_no_histories(recommend, wrong):
    with pytest.raises(TypeError, match=r"must (be a list of raw item ids|have a `history`)"):
        recommend(wrong)


def test_options_that_there_are_not(recommend):
    with pytest.raises(TypeError, match="`k` must be left out"):
        recommend(HISTORIES[0], k=3)
    with pytest.raises(ValueError, match="`top_k` must be between 1 and the catalog's 12 items, got 13"):
        recommend(HISTORIES[0], top_k=13)
    with pytest.raises(TypeError, match="`top_k` must be an integer, got '5'"):
        recommend(HISTORIES[0], top_k="5")
    with pytest.raises(TypeError, match="`inputs` must be one argument, got 2"):
        recommend(HISTORIES[0], HISTORIES[1])
