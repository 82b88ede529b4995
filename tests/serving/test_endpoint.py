"""The handler of an Inference Endpoint, in a process where this package cannot be imported."""

import json
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from hf_seqrec import Catalog
from hf_seqrec.cli.endpoint import main
from hf_seqrec.inference.recommender import Recommender
from hf_seqrec.serving.endpoint import write_endpoint
from hf_seqrec.serving.endpoint_handler import MOST_HISTORIES, MOST_ITEMS, EndpointHandler
from tests.helpers import small_model

WITHOUT_THE_PACKAGE = """
import json, sys
sys.modules["hf_seqrec"] = None
folder, request = sys.argv[1:]
sys.path.insert(0, folder)
from handler import EndpointHandler
handler = EndpointHandler(folder)
assert type(handler.model).__module__.startswith("transformers_modules."), type(handler.model)
print(json.dumps(handler(json.loads(request))))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("endpoint") / "model"
    small_model(13).save_pretrained(folder)
    titles = [f"Item {row}" if row != 5 else None for row in range(1, 13)]
    Catalog.from_items([str(row) for row in range(1, 13)], count=[*range(11), 50], title=titles).save(folder)
    return folder


@pytest.fixture(scope="module")
def handler(folder):
    return EndpointHandler(str(folder))


@pytest.fixture(scope="module")
def recommender(folder):
    return Recommender.from_pretrained(folder)


def expected_of(recommendations):
    return [
        {"item_id": best.item_id, "score": pytest.approx(best.score, rel=1e-5), "title": best.title}
        for best in recommendations
    ]


def test_serves_where_the_package_is_absent(folder, recommender, tmp_path):
    assert [path.name for path in write_endpoint(folder)] == ["handler.py", "requirements.txt"]
    request = {"inputs": [{"history": ["3", 4, "x"]}, {"history": ["7"]}], "parameters": {"top_k": 3}}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_PACKAGE, folder, json.dumps(request)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"PATH": "", "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout.splitlines()[-1])
    assert first["recommendations"] == expected_of(recommender.recommend(["3", "4"], 3))
    assert (first["unknown_items"], first["source"]) == (1, "model")
    assert second["recommendations"] == expected_of(recommender.recommend(["7"], 3))


def test_requirements_are_those_of_the_package(folder):
    requirements = write_endpoint(folder)[1].read_text().splitlines()
    assert {Requirement(line).name for line in requirements} == {
        *("numpy", "pyarrow", "safetensors", "torch", "transformers")
    }
    assert all(Requirement(line).specifier for line in requirements)


def test_options(handler, recommender):
    asked = {"inputs": {"history": ["3"]}, "parameters": {"exclude_seen": False, "candidates": ["3", 5, "x"]}}
    answer = handler(asked)
    assert answer["recommendations"] == expected_of(recommender.recommend(["3"], 10, False, ["3", "5"]))
    assert {best["title"] for best in answer["recommendations"]} == {"Item 3", "5"}


def test_fewer_where_fewer_are_left(handler):
    history = [str(row) for row in range(1, 12)]
    assert [best["item_id"] for best in handler({"inputs": {"history": history}})["recommendations"]] == ["12"]
    everything = {"inputs": {"history": [*history, "12"]}}
    assert handler(everything) == {
        "recommendations": [],
        "source": "model",
        "unknown_items": 0,
        "unknown_candidates": 0,
    }


def test_popular_items_where_nothing_is_known(handler):
    answer = handler({"inputs": {"history": ["x"]}, "parameters": {"top_k": 2}})
    assert answer == {
        "recommendations": [
            {"item_id": "12", "score": 50.0, "title": "Item 12"},
            {"item_id": "11", "score": 10.0, "title": "Item 11"},
        ],
        "source": "popularity",
        "unknown_items": 1,
        "unknown_candidates": 0,
    }


@pytest.mark.parametrize(
    ("request_body", "message"),
    [
        ({}, "`inputs` must be"),
        ({"inputs": ["3"]}, "`inputs` must be"),
        ({"inputs": {"history": "3"}}, "Items must be a list"),
        ({"inputs": {"history": [1.5]}}, "Items must be a list"),
        ({"inputs": {"history": ["3"] * (MOST_ITEMS + 1)}}, f"at most {MOST_ITEMS} raw ids"),
        ({"inputs": [{"history": ["3"]}] * (MOST_HISTORIES + 1)}, f"at most {MOST_HISTORIES} histories, got 257"),
        ({"inputs": {"history": ["3"]}, "parameters": {"topk": 3}}, "`parameters` must be top_k"),
        ({"inputs": {"history": ["3"]}, "parameters": {"top_k": "3"}}, "`parameters` must be top_k"),
        ({"inputs": {"history": ["3"]}, "parameters": {"top_k": 13}}, "`top_k` must be between 1 and the 12 items"),
        ({"inputs": {"history": ["3"]}, "parameters": {"candidates": ["x"]}}, "`candidates` must be items of"),
    ],
)
def test_refuses_what_makes_no_sense(handler, request_body, message):
    with pytest.raises(ValueError, match=message):
        handler(request_body)


def test_the_catalog_of_another_model(tmp_path):
    small_model(13).save_pretrained(tmp_path)
    Catalog.from_items(["a", "b"]).save(tmp_path)
    with pytest.raises(ValueError, match=r"catalog\.parquet has 2 items, but the model has 12"):
        EndpointHandler(str(tmp_path))
    with pytest.raises(ValueError, match=r"catalog\.parquet has 2 items, but the model has 12"):
        main([str(tmp_path)])
    assert not (tmp_path / "handler.py").exists()
