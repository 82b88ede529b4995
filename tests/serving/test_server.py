"""The HTTP server: the answers of Python, whoever asks at the same time; what it refuses; its sessions' file."""

import http.client
import importlib
import json
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest
import torch
from transformers import AutoConfig, AutoModel, set_seed

pytest.importorskip("fastapi", reason='needs pip install "hf-seqrec[serve]"')
pytest.importorskip("httpx2", reason="starlette's test client needs it")

import uvicorn
from fastapi.testclient import TestClient

import hf_seqrec
from hf_seqrec import Catalog
from hf_seqrec.cli.serve import main
from hf_seqrec.inference.recommender import Recommender
from hf_seqrec.inference.sessions import SessionStore
from hf_seqrec.serving.batching import AddEvents, EndSession, ModelThread, RecommendHistory, RecommendSession
from hf_seqrec.serving.server import MOST_ITEMS, ServerOptions, create_app

N_ITEMS = 30


def recommender_of(model_type):
    set_seed(0)
    vocab_size = hf_seqrec.config_class(model_type).vocab_size_for(N_ITEMS)
    model = AutoModel.from_config(AutoConfig.for_model(model_type, vocab_size=vocab_size, hidden_size=16))
    ids = [f"i{row}" for row in range(1, N_ITEMS + 1)]
    return Recommender(model, Catalog.from_items(ids, title=[f"Item {row}" for row in range(1, N_ITEMS + 1)]))


@pytest.fixture(scope="module")
def recommender():
    return recommender_of("gru4rec")


@pytest.fixture
def client(recommender):
    with TestClient(create_app(recommender)) as client:
        yield client


def assert_same(found, expected):
    assert [best["item_id"] for best in found] == [best.item_id for best in expected]
    for best, of_python in zip(found, expected, strict=True):
        assert abs(best["score"] - of_python.score) < 1e-4
        assert best["title"] == of_python.title


class TestRecommend:
    def test_as_in_python(self, client, recommender):
        answer = client.post("/recommend", json={"history": ["i3", "x", "i5"], "top_k": 4})
        assert answer.status_code == 200
        assert_same(answer.json()["recommendations"], recommender.recommend(["i3", "i5"], 4))
        assert (answer.json()["unknown_items"], answer.json()["source"]) == (1, "model")

    def test_options(self, client, recommender):
        body = {"history": ["i3"], "candidates": ["i3", "i4", "x"], "exclude_seen": False}
        answer = client.post("/recommend", json=body).json()
        assert_same(answer["recommendations"], recommender.recommend(["i3"], 10, False, ["i3", "i4"]))

    @pytest.mark.parametrize("history", [[], ["x"]])
    def test_popular_items_where_nothing_is_known(self, client, history):
        answer = client.post("/recommend", json={"history": history, "top_k": 2}).json()
        assert answer["source"] == "popularity"
        assert [best["item_id"] for best in answer["recommendations"]] == ["i1", "i2"]

    def test_decimal_ids(self, recommender):
        numbered = Recommender(recommender.model, Catalog.from_items([str(n) for n in range(1, N_ITEMS + 1)]))
        with TestClient(create_app(numbered)) as client:
            assert client.post("/recommend", json={"history": [3, "5"]}).json()["unknown_items"] == 0


class TestSessions:
    def test_follow_events(self, client, recommender):
        added = client.post("/sessions/ann/events", json={"item_ids": ["i3", "x"]}).json()
        assert added == {"events": 1, "unknown_items": 1, "recommendations": None, "source": None}
        added = client.post("/sessions/ann/events", json={"item_ids": ["i5", "i6"], "top_k": 3}).json()
        assert added["events"] == 3
        assert_same(added["recommendations"], recommender.recommend(["i3", "i5", "i6"], 3))
        answer = client.get("/sessions/ann/recommendations?top_k=30&exclude_seen=false").json()
        assert answer["events"] == 3
        assert_same(answer["recommendations"], recommender.recommend(["i3", "i5", "i6"], 30, exclude_seen=False))

    def test_of_nobody(self, client):
        answer = client.get("/sessions/bob/recommendations").json()
        assert (answer["events"], answer["source"], len(answer["recommendations"])) == (0, "popularity", 10)

    def test_end(self, client):
        client.post("/sessions/ann/events", json={"item_ids": ["i3"]})
        assert client.delete("/sessions/ann").status_code == 204
        gone = client.delete("/sessions/ann")
        assert gone.status_code == 404
        assert gone.json()["detail"] == "There is no session of user 'ann'."

    def test_a_user_with_any_signs(self, client):
        for user in ("ann/events", "ann/recommendations", "a b?c=%2F#é"):
            path = quote(user, safe="")
            assert client.post(f"/sessions/{path}/events", json={"item_ids": ["i3"]}).json()["events"] == 1
            assert client.get(f"/sessions/{path}/recommendations").json()["events"] == 1
            assert client.delete(f"/sessions/{path}").status_code == 204
        assert client.get("/sessions/ann/recommendations").json()["events"] == 0

    def test_the_least_recently_used_is_evicted(self, recommender):
        with TestClient(create_app(recommender, ServerOptions(max_sessions=2, max_batch=2))) as client:
            for user in ("ann", "bob", "cid"):
                client.post(f"/sessions/{user}/events", json={"item_ids": ["i3"]})
            health = client.get("/health").json()
            assert (health["sessions"], health["max_sessions"], health["evicted_sessions"]) == (2, 2, 1)
            assert client.get("/sessions/ann/recommendations").json()["events"] == 0

    def test_no_state_no_sessions(self):
        with TestClient(create_app(recommender_of("bert4rec"))) as client:
            refused = client.post("/sessions/ann/events", json={"item_ids": ["i3"]})
            assert refused.status_code == 501
            assert "BERT4Rec looks both ways" in refused.json()["detail"]
            assert "/recommend" in refused.json()["detail"]
            assert client.post("/recommend", json={"history": ["i3"]}).json()["source"] == "model"
            assert client.get("/health").json()["sessions"] == 0


class TestRefuses:
    @pytest.mark.parametrize(
        ("path", "body", "message"),
        [
            ("/recommend", {}, "Field required"),
            ("/recommend", {"history": "i3"}, "valid list"),
            ("/recommend", {"history": [True]}, "valid integer"),
            ("/recommend", {"history": [1.5]}, "valid integer"),
            ("/recommend", {"history": [""]}, "at least 1 character"),
            ("/recommend", {"history": ["x" * 257]}, "at most 256 characters"),
            ("/recommend", {"history": ["i3"] * (MOST_ITEMS + 1)}, f"at most {MOST_ITEMS} items"),
            ("/recommend", {"history": ["i3"], "top_k": 0}, "greater than or equal to 1"),
            ("/recommend", {"history": ["i3"], "top_k": 1001}, "less than or equal to 30"),
            ("/recommend", {"history": ["i3"], "top_k": 31}, "less than or equal to 30"),
            ("/recommend", {"history": ["i3"], "topk": 3}, "Extra inputs are not permitted"),
            ("/recommend", {"history": ["i3"], "candidates": ["x"]}, "`candidates` must be items of this model's"),
            ("/recommend", {"history": ["i3"], "candidates": []}, "at least 1 item"),
            ("/sessions/ann/events", {"item_ids": []}, "at least 1 item"),
            ("/sessions/ann/events", {"item_ids": ["i3"], "top_k": 31}, "less than or equal to 30"),
            (f"/sessions/{'x' * 257}/events", {"item_ids": ["i3"]}, "at most 256 characters"),
            ("/sessions/a%0Ab/events", {"item_ids": ["i3"]}, "should match pattern"),
            ("/sessions/%0A/events", {"item_ids": ["i3"]}, "should match pattern"),
            ("/sessions/ann%00/events", {"item_ids": ["i3"]}, "should match pattern"),
        ],
    )
    def test_what_makes_no_sense(self, client, path, body, message):
        refused = client.post(path, json=body)
        assert refused.status_code == 422
        assert message in refused.text
        # As OpenAPI says.
        assert all({"loc", "msg", "type"} == set(problem) for problem in refused.json()["detail"])

    def test_users_that_no_route_may_lose(self, client):
        for user in ("ann%0A", "%0Aann", "a%7Fb"):
            assert client.get(f"/sessions/{user}/recommendations").status_code == 422
            assert client.delete(f"/sessions/{user}").status_code == 422

    def test_a_model_that_diverged(self):
        """The fault is the server's, so the answer says so."""
        diverged = recommender_of("gru4rec")
        with TestClient(create_app(diverged)) as client:
            with torch.no_grad():
                diverged.model.item_embeddings.weight[7] = torch.nan
            refused = client.post("/recommend", json={"history": ["i3"]})
        assert refused.status_code == 500
        assert "are NaN or infinite" in refused.json()["detail"]

    @pytest.mark.parametrize(
        "text",
        [b"{", b'{"history": ["\\ud800"]}', b'{"history": [], "\\ud800": 1}', b'{"history": [' + b"1" * 5000 + b"]}"],
        ids=["unfinished", "half a character", "half a character's name", "a number too long"],
    )
    def test_what_is_no_json(self, client, text):
        refused = client.post("/recommend", content=text, headers={"Content-Type": "application/json"})
        assert refused.status_code in (400, 422)
        assert refused.json()["detail"]
        assert client.post("/recommend", json={"history": ["i3"]}).status_code == 200

    def test_the_answer_to_nonsense_is_short(self, client):
        refused = client.post("/recommend", json={"history": [[["nested"] * 10]] * 5_000})
        assert refused.status_code == 422
        assert len(refused.content) < 2_000

    @pytest.mark.parametrize("is_chunked", [False, True])
    def test_an_oversized_request(self, recommender, is_chunked):
        with TestClient(create_app(recommender, ServerOptions(max_body_bytes=1000))) as client:
            parts = [b'{"history": [', b'"i3", ' * 200, b'"i3"]}']
            content = iter(parts) if is_chunked else b"".join(parts)
            refused = client.post("/recommend", content=content, headers={"Content-Type": "application/json"})
            assert refused.status_code == 413
            assert "at most 1,000 bytes" in refused.json()["detail"]
            assert client.post("/recommend", json={"history": ["i3"] * 100}).status_code == 200

    def test_more_than_may_wait(self, recommender):
        with TestClient(create_app(recommender, ServerOptions(max_waiting=0))) as client:
            refused = client.post("/recommend", json={"history": ["i3"]})
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")

    def test_without_the_extra(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "fastapi", None)
        monkeypatch.delitem(sys.modules, "hf_seqrec.serving.server")
        with pytest.raises(ImportError, match=r'pip install "hf-seqrec\[serve\]"'):
            importlib.import_module("hf_seqrec.serving.server")


class TestModelThread:
    def test_what_waits_goes_together(self, recommender, monkeypatch):
        """Jobs of every kind, submitted before the thread starts, are one batch, and each gets its own answer."""
        calls = []
        together = recommender.recommend_many
        monkeypatch.setattr(
            recommender,
            "recommend_many",
            lambda histories, *rest: calls.append(len(histories)) or together(histories, *rest),
        )
        thread = ModelThread(recommender, SessionStore(recommender.model, recommender.catalog))
        from_history = [
            thread.submit(RecommendHistory([f"i{row}"] * row, top_k=1 + row % 3, exclude_seen=row % 2 == 0))
            for row in range(1, 9)
        ]
        of_candidates = [thread.submit(RecommendHistory(["i1"], candidates=[name])) for name in ("i2", "i3")]
        added = [thread.submit(AddEvents("ann", [name], top_k=2)) for name in ("i4", "i5")]
        asked = thread.submit(RecommendSession("ann", top_k=3))
        ended = [thread.submit(EndSession(user)) for user in ("ann", "bob")]
        thread.start()
        thread.stop()
        assert sorted(calls) == [1, 1, 4, 4]
        for job in from_history:
            expected = together([job.history], job.top_k, job.exclude_seen)[0]
            found = job.done.result(0)
            assert [best.item_id for best in found.recommendations] == [
                best.item_id for best in expected.recommendations
            ]
        names = [[best.item_id for best in job.done.result(0).recommendations] for job in of_candidates]
        assert names == [["i2"], ["i3"]]
        assert [job.done.result(0).events for job in added] == [2, 2]
        expected = together([["i4", "i5"]], 3)[0].recommendations
        assert [best.item_id for best in asked.done.result(0).answer.recommendations] == [
            best.item_id for best in expected
        ]
        assert [job.done.result(0) for job in ended] == [True, False]

    def test_batches_are_bounded(self, recommender, monkeypatch):
        calls = []
        together = recommender.recommend_many
        monkeypatch.setattr(
            recommender,
            "recommend_many",
            lambda histories, *rest: calls.append(len(histories)) or together(histories, *rest),
        )
        thread = ModelThread(recommender, max_batch=3)
        jobs = [thread.submit(RecommendHistory(["i1"])) for _ in range(7)]
        thread.start()
        thread.stop()
        assert calls == [3, 3, 1]
        assert all(job.done.done() for job in jobs)

    def test_who_has_given_up_gets_nothing_done(self, recommender):
        store = SessionStore(recommender.model, recommender.catalog)
        thread = ModelThread(recommender, store)
        thread.submit(AddEvents("ann", ["i1"])).done.cancel()
        thread.start()
        thread.stop()
        assert "ann" not in store

    def test_goes_on_after_an_error(self, recommender, monkeypatch):
        thread = ModelThread(recommender, max_batch=1)
        with monkeypatch.context() as broken:
            broken.setattr(recommender, "recommend_many", lambda *_: 1 / 0)
            failed = thread.submit(RecommendHistory(["i1"]))
            thread.start()
            with pytest.raises(ZeroDivisionError):
                failed.done.result(5)
        assert thread.submit(RecommendHistory(["i1"])).done.result(5).recommendations
        thread.stop()

    def test_users_of_one_batch_must_fit(self, recommender):
        with pytest.raises(ValueError, match=r"`max_users` must be at least `max_batch`.* got 4 and 64"):
            ModelThread(recommender, SessionStore(recommender.model, recommender.catalog, max_users=4))


class TestSessionsFile:
    def test_sessions_outlive_the_server(self, recommender, tmp_path):
        options = ServerOptions(sessions_file=tmp_path / "sessions.safetensors")
        with TestClient(create_app(recommender, options)) as client:
            client.post("/sessions/ann/events", json={"item_ids": ["i3", "i5"]})
        with TestClient(create_app(recommender, options)) as client:
            answer = client.get("/sessions/ann/recommendations").json()
        assert answer["events"] == 2
        assert_same(answer["recommendations"], recommender.recommend(["i3", "i5"]))

    def test_of_another_model(self, recommender, tmp_path):
        file, folder = tmp_path / "sessions.safetensors", tmp_path / "model"
        SessionStore(recommender.model, recommender.catalog).save(file)
        other = recommender_of("mamba4rec")
        other.model.save_pretrained(folder)
        other.catalog.save(folder)
        with pytest.raises(ValueError, match=r"holds the sessions of another type of model \(gru4rec\)"):
            main([str(folder), "--sessions_file", str(file)])

    def test_of_a_model_without_a_state(self, tmp_path):
        with pytest.raises(ValueError, match="`sessions_file` needs a model that carries state"):
            create_app(recommender_of("bert4rec"), ServerOptions(sessions_file=tmp_path / "sessions"))


def test_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match="is not a checkpoint folder"):
        main([str(tmp_path)])


def test_addresses_and_devices_that_are_none(tmp_path):
    """They are refused before the checkpoint is looked at."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for options, message in (
            (["--port", "80000"], "`--port` must be between 1 and 65535, got 80000"),
            (["--port", "-1"], "`--port` must be between 1 and 65535, got -1"),
            (["--port", str(port)], f"`--port` {port} must be an address to listen at: Address already in use"),
            (["--host", "no such host"], "`--host` no such host and `--port` 8000 must be an address"),
            (["--device", "abacus"], "`--device` must be one that torch can use here, such as cpu, got 'abacus'"),
            (["--threads", "0"], "`--threads` must be at least 1, got 0"),
        ):
            with pytest.raises(ValueError, match=message):
                main([str(tmp_path / "none"), *options])


def test_openapi(client):
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) == {
        "/recommend",
        "/sessions/{user}/events",
        "/sessions/{user}/recommendations",
        "/sessions/{user}",
        "/health",
    }
    schemas = described["components"]["schemas"]
    assert schemas["HistoryRequest"]["properties"]["history"]["maxItems"] == MOST_ITEMS
    assert schemas["HistoryRequest"]["properties"]["top_k"]["maximum"] == N_ITEMS
    assert schemas["EventsRequest"]["properties"]["top_k"]["anyOf"][0]["maximum"] == N_ITEMS
    recommendations = described["paths"]["/sessions/{user}/recommendations"]["get"]
    bounds = {parameter["name"]: parameter["schema"] for parameter in recommendations["parameters"]}
    assert bounds["top_k"]["maximum"] == N_ITEMS
    assert bounds["user"]["pattern"] == r"^[^\x00-\x1f\x7f]+$"
    assert set(described["paths"]["/sessions/{user}"]["delete"]["responses"]) == {
        *("204", "404", "413", "422", "501", "503")
    }


def test_a_small_catalog_has_a_small_default():
    """Without `top_k`, a request gets what there is."""
    set_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model("gru4rec", vocab_size=4, hidden_size=16))
    with TestClient(create_app(Recommender(model, Catalog.from_items(["a", "b", "c"])))) as client:
        client.post("/sessions/ann/events", json={"item_ids": ["a"]})
        for answer in (
            client.post("/recommend", json={"history": ["a"]}),
            client.get("/sessions/ann/recommendations"),
        ):
            assert {best["item_id"] for best in answer.json()["recommendations"]} == {"b", "c"}


@pytest.fixture
def port(recommender):
    """Give the port of a real server on the loopback interface."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(create_app(recommender), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        deadline = time.monotonic() + 20
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        yield listening.getsockname()[1]
        server.should_exit = True
        thread.join(20)


def test_users_at_the_same_time_do_not_mix(port, recommender):
    """Each client's session follows its own events, over real connections, in batches with all others."""

    def converse(user):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        answers = []
        for event in range(6):
            body = json.dumps({"item_ids": [f"i{(7 * user + 3 * event) % N_ITEMS + 1}"], "top_k": 5})
            connection.request("POST", f"/sessions/{user}/events", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answers.append((response.status, json.loads(response.read())))
        connection.close()
        return answers

    with ThreadPoolExecutor(12) as pool:
        conversations = list(pool.map(converse, range(12)))
    for user, answers in enumerate(conversations):
        for n_events, (status, answer) in enumerate(answers, start=1):
            history = [f"i{(7 * user + 3 * event) % N_ITEMS + 1}" for event in range(n_events)]
            assert (status, answer["events"]) == (200, n_events)
            assert_same(answer["recommendations"], recommender.recommend(history, 5))
