"""The same question on every way in: Python, an index, sessions, pipeline, server, endpoint, page and command."""

import contextlib
import functools
import io
import re

import pytest
from transformers import AutoConfig, AutoModel, pipeline, set_seed

import hf_seqrec
from hf_seqrec import Catalog
from hf_seqrec.cli import recommend
from hf_seqrec.inference.recommender import Recommender
from hf_seqrec.inference.sessions import SessionStore
from hf_seqrec.serving.endpoint_handler import EndpointHandler
from hf_seqrec.serving.page import Page

N_ITEMS = 30
QUESTIONS = {
    "history": {"history": ["3", "7", "5"], "top_k": 4},
    "unknown items": {"history": ["x", "3", "y"], "top_k": 4},
    "seen items too": {"history": ["3", "7"], "top_k": N_ITEMS, "exclude_seen": False},
    "fewer left": {"history": [str(row) for row in range(1, N_ITEMS - 1)], "top_k": 10},
    "nothing left": {"history": [str(row) for row in range(1, N_ITEMS + 1)], "top_k": 3},
    "nothing known": {"history": ["x"], "top_k": 3},
    "no history": {"history": [], "top_k": 3},
    "candidates": {"history": ["3"], "top_k": 5, "candidates": ["3", "8", "x", "9"]},
    "popular candidates": {"history": [], "top_k": 2, "candidates": ["8", "30", "x", "29"]},
    "excluded": {"history": ["3"], "top_k": N_ITEMS, "exclude": ["8", "9", "x"]},
    "popular but the excluded": {"history": ["x"], "top_k": 3, "exclude": ["29", "30"]},
    "candidates but the excluded": {"history": ["3"], "top_k": 5, "candidates": ["8", "9"], "exclude": ["9"]},
    "no candidate but the excluded": {"history": ["3"], "top_k": 5, "candidates": ["8"], "exclude": ["8"]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    set_seed(0)
    vocab_size = hf_seqrec.config_class("gru4rec").vocab_size_for(N_ITEMS)
    AutoModel.from_config(AutoConfig.for_model("gru4rec", vocab_size=vocab_size, hidden_size=16)).save_pretrained(
        folder
    )
    ids = [str(row) for row in range(1, N_ITEMS + 1)]
    titles = [None if row == 5 else f"Item {row}" for row in range(1, N_ITEMS + 1)]
    Catalog.from_items(ids, count=range(N_ITEMS), title=titles).save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def recommender(folder):
    return Recommender.from_pretrained(folder)


@functools.cache
def opened_pipeline(folder):
    return pipeline("sequential-recommendation", model=folder, device="cpu")


@functools.cache
def endpoint_handler(folder):
    return EndpointHandler(folder)


def in_python(answer):
    return answer._asdict() | {"recommendations": [best._asdict() for best in answer.recommendations]}


def ask_python(recommender, folder, history, **options):
    return in_python(recommender.recommend_many([history], **options)[0])


def ask_index(recommender, folder, history, **options):
    pytest.importorskip("faiss", reason="needs the extra ann")
    from hf_seqrec.inference.search_index import SearchIndex

    indexed = Recommender(recommender.model, recommender.catalog, SearchIndex.build(recommender.model))
    return in_python(indexed.recommend_many([history], **options)[0])


def ask_sessions(recommender, folder, history, **options):
    store = SessionStore(recommender.model, recommender.catalog)
    unknown = store.add_many(["ann"] * len(history), history)
    return in_python(store.recommend_many(["ann"], **options)[0]) | {"unknown_items": unknown}


def ask_pipeline(recommender, folder, history, **options):
    found = opened_pipeline(folder)(history, **options)
    assert all(item.pop("recommended_by") == item["source"] for item in found)
    sources = {item.pop("source") for item in found}
    return {"recommendations": found} | ({"source": sources.pop()} if sources else {})


def ask_server(recommender, folder, history, **options):
    pytest.importorskip("fastapi", reason="needs the extra serve")
    pytest.importorskip("httpx2", reason="starlette's test client needs it")
    from fastapi.testclient import TestClient

    from hf_seqrec.serving.server import create_app

    with TestClient(create_app(recommender)) as client:
        answer = client.post("/recommend", json={"history": history, **options})
    assert answer.status_code == 200, answer.text
    return answer.json()


def ask_endpoint(recommender, folder, history, **options):
    return endpoint_handler(folder)({"inputs": {"history": history}, "parameters": options})


def ask_page(recommender, folder, history, top_k, exclude_seen=True, **filters):
    # The page offers only what the catalog has, and no filters.
    if filters or "x" in history:
        pytest.skip("the page does not ask this")
    shown = Page(recommender, top_k).show(history, include_seen=not exclude_seen)
    items = [dict(zip(("item_id", "title", "score"), cells, strict=True)) for cells in shown.recommendations]
    return {"recommendations": items, "source": shown.source}


def ask_command(recommender, folder, history, top_k=10, exclude_seen=True, **filters):
    if not history:
        pytest.skip("the command has no option for an empty history")
    words = [folder, "--history", *history, "--top_k", str(top_k)]
    words += [word for name, ids in filters.items() for word in (f"--{name}", *ids)]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        recommend.main(words if exclude_seen else [*words, "--include_seen"])
    before, ranking = printed.getvalue().split("Recommended:")
    lines = [re.fullmatch(r" *\d+\. (.*\S) +id (\S+) +(\S+)", line) for line in ranking.strip("\n").splitlines()]
    items = [{"item_id": line[2], "score": float(line[3]), "title": line[1]} for line in lines]
    counts = {
        f"unknown_{what}": int(count)
        for count, what in re.findall(r"^(\d+) of \d+ (items|candidates) are not", before, re.M)
    }
    source = "popularity" if "most popular" in before else "model"
    return {"recommendations": items, "source": source, "unknown_items": 0, "unknown_candidates": 0} | counts


WAYS = [ask_index, ask_sessions, ask_pipeline, ask_server, ask_endpoint, ask_page, ask_command]


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
@pytest.mark.parametrize("ask", WAYS, ids=lambda ask: ask.__name__.removeprefix("ask_"))
def test_every_way_in_gives_the_same_answer(ask, question, recommender, folder):
    expected = ask_python(recommender, folder, **question)
    for item in expected["recommendations"]:
        item["score"] = pytest.approx(item["score"], abs=1e-3)
    found = ask(recommender, folder, **question)
    assert found.pop("recommendations") == expected["recommendations"]
    assert found.items() <= expected.items()


def test_the_questions_have_the_answers_that_they_are_for(recommender):
    answers = {
        name: recommender.recommend_many([q["history"]], **{k: v for k, v in q.items() if k != "history"})[0]
        for name, q in QUESTIONS.items()
    }
    ids = {name: [best.item_id for best in answer.recommendations] for name, answer in answers.items()}
    assert {name for name, answer in answers.items() if answer.source == "popularity"} == {
        "nothing known",
        "no history",
        "popular candidates",
        "popular but the excluded",
    }
    assert set(ids["fewer left"]) == {"29", "30"}
    assert ids["nothing left"] == ids["no candidate but the excluded"] == []
    assert set(ids["candidates"]) == {"8", "9"}
    assert answers["candidates"].unknown_candidates == answers["unknown items"].unknown_items - 1 == 1
    assert ids["popular candidates"] == ["30", "29"]
    assert len(ids["excluded"]) == N_ITEMS - 3
    assert not {"3", "8", "9"} & set(ids["excluded"])
    assert ids["popular but the excluded"] == ["28", "27", "26"]
    assert ids["candidates but the excluded"] == ["8"]
