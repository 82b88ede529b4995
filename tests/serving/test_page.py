"""The page: what its clicks do and show, the files of its Space; and the page itself where gradio is installed."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
import yaml

from hf_seqrec.cli.demo import main
from hf_seqrec.data.catalog import Catalog
from hf_seqrec.inference.recommender import Recommender
from hf_seqrec.serving.page import Page, build_page, write_space
from tests.helpers import small_model

TITLES = [
    "Alien",
    "Aliens",
    "Brazil",
    "Casablanca",
    "Diva",
    "Alien",
    "Eraserhead",
    "Fargo",
    "Gattaca",
    "Heat",
    "Ikiru",
]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def recommender():
    counts = list(range(len(TITLES), 0, -1))
    catalog = Catalog.from_items([f"id-{row}" for row in range(1, 12)], count=counts, title=TITLES)
    return Recommender(small_model(vocab_size=12), catalog)


@pytest.fixture
def page(recommender):
    return Page(recommender, top_k=3)


def test_search_finds_the_exact_and_the_popular_first(page):
    assert page.search("alien") == [("id-1", "Alien"), ("id-6", "Alien"), ("id-2", "Aliens")]
    assert page.search("  DIVA ") == [("id-5", "Diva")]
    assert page.search("id-11") == [("id-11", "Ikiru")]
    assert page.search("nothing like it") == []


def test_without_a_text_the_most_popular_are_found(page):
    assert [title for _, title in page.search(" ")] == ["Alien", "Aliens", "Brazil"]


def test_clicks_grow_and_shrink_the_history(page):
    history = []
    for place in (0, 1, 0):
        history = page.add(history, ["id-3", "id-5"], place)
    assert history == ["id-3", "id-5", "id-3"]
    assert page.show(history).history == [("id-3", "Brazil"), ("id-5", "Diva"), ("id-3", "Brazil")]
    # The latest is shown first, so place 0 is the last click.
    assert page.remove(history, 0) == ["id-3", "id-5"]
    assert page.remove(history, 2) == ["id-5", "id-3"]
    assert history == ["id-3", "id-5", "id-3"]


def test_clicks_on_a_line_that_offers_nothing(page):
    assert page.add(["id-3"], [], 0) == ["id-3"]
    assert page.remove([], 0) == []


def test_the_example_is_what_is_popular(page):
    assert page.example() == ["id-1", "id-2", "id-3"]
    assert page.show(page.example()).source == "model"


def test_year_and_genre_stand_beside_a_title(recommender):
    catalog = Catalog.from_items(
        ["1", "2", "3"],
        count=[3, 2, 1],
        title=["Alien", "Brazil", None],
        year=[1979, None, 1985],
        genres=["Horror|Sci-Fi", "", "x" * 100],
        cast=[["Weaver", "Skerritt"], None, []],
    )
    page = Page(Recommender(small_model(vocab_size=4), catalog))
    names = ["Alien · 1979 · Horror, Sci-Fi · Weaver, Skerritt", "Brazil", f"3 · 1985 · {'x' * 79}…"]
    assert [name for _, name in page.search("")] == names
    assert page.show(["2"]).history == [("2", "Brazil")]
    assert {name for _, name, _ in page.show(["2"]).recommendations} == {names[0], names[2]}


def test_search_takes_words_in_any_order(recommender):
    catalog = Catalog.from_items(["1", "2"], title=["Godfather, The (1972)", "Amélie"])
    page = Page(Recommender(small_model(vocab_size=3), catalog))
    assert [item_id for item_id, _ in page.search("the godfather")] == ["1"]
    assert [item_id for item_id, _ in page.search("AMELIE")] == ["2"]


def test_an_empty_history_shows_what_is_popular_and_says_so(page):
    shown = page.show([])
    assert shown.history == []
    assert shown.recommendations == [("id-1", "Alien", 11.0), ("id-2", "Aliens", 10.0), ("id-3", "Brazil", 9.0)]
    assert "most popular" in shown.explanation


def test_recommendations_are_the_recommenders(page, recommender):
    history = ["id-3", "id-5"]
    shown = page.show(history)
    expected = recommender.recommend(history, top_k=3)
    assert shown.recommendations == [(best.item_id, best.title, best.score) for best in expected]
    assert not {item_id for item_id, _, _ in shown.recommendations} & set(history)
    assert shown.explanation.startswith("After 2 items, by Mamba4Rec among 11.")
    everything = Page(recommender, top_k=11).show(history, include_seen=True)
    assert set(history) < {item_id for item_id, _, _ in everything.recommendations}
    assert len(Page(recommender, top_k=11).show(history).recommendations) == 9


def test_a_small_catalog_is_shown_whole(recommender):
    assert len(Page(recommender, top_k=100).show([]).recommendations) == 11


def test_top_k_below_one_is_refused(recommender):
    with pytest.raises(ValueError, match="`top_k` must be between 1"):
        Page(recommender, top_k=0)


def test_space_says_its_model_and_calls_the_page(tmp_path, capsys):
    main(["org/mamba4rec-ml-1m", "--space", str(tmp_path / "space")])
    folder = tmp_path / "space"
    assert str(folder) in capsys.readouterr().out
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "app.py", "requirements.txt"]
    _, header, _ = (folder / "README.md").read_text().split("---\n", 2)
    metadata = yaml.safe_load(header)
    assert metadata["sdk"] == "gradio"
    assert metadata["app_file"] == "app.py"
    assert metadata["models"] == ["org/mamba4rec-ml-1m"]
    assert metadata["title"] == "mamba4rec-ml-1m"
    # The Hub allows no more.
    assert len(metadata["short_description"]) <= 60
    # Space installs gradio by itself, at `sdk_version`.
    assert (folder / "requirements.txt").read_text().startswith("hf-seqrec[cpu]>=")
    asked = []
    stub = type(sys)("hf_seqrec.serving.page")
    stub.build_page = lambda checkpoint: asked.append(checkpoint) or "the page"
    namespace = run_app((folder / "app.py").read_text(), stub)
    assert asked == ["org/mamba4rec-ml-1m"]
    assert namespace["demo"] == "the page"


def run_app(code, stub):
    namespace = {"__name__": "app"}
    real = sys.modules["hf_seqrec.serving.page"]
    sys.modules["hf_seqrec.serving.page"] = stub
    try:
        exec(compile(code, "app.py", "exec"), namespace)
    finally:
        sys.modules["hf_seqrec.serving.page"] = real
    return namespace


@pytest.mark.parametrize("name", ["runs/ml-1m/best", "a b", 'x"); import os; ("', ""])
def test_space_of_what_is_no_model_id_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="`repo_id` must name a model on the Hub"):
        write_space(tmp_path / "space", name)
    assert not (tmp_path / "space").exists()


@pytest.mark.skipif(importlib.util.find_spec("gradio") is not None, reason="gradio is installed")
def test_without_gradio_the_page_says_what_to_install(tmp_path):
    with pytest.raises(ImportError, match=r"hf-seqrec\[demo\]"):
        build_page(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="needs gradio (the extra demo)")
def test_page_in_a_browser(recommender, tmp_path):
    """Serve the page, click through it as the browser does, and have headless Chromium draw it where there is one."""
    import gradio_client

    recommender.model.save_pretrained(tmp_path / "checkpoint")
    recommender.catalog.save(tmp_path / "checkpoint")
    address = "http://127.0.0.1:7917"
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "hf_seqrec",
            "demo",
            str(tmp_path / "checkpoint"),
            "--top_k",
            "3",
            "--port",
            "7917",
        ],
        env={**os.environ, "GRADIO_ANALYTICS_ENABLED": "False"},
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for(address, server)
        client = gradio_client.Client(address, verbose=False)
        found = client.predict("brazil", api_name="/found")
        assert found["samples"] == [["Brazil"]]
        if CHROMIUM is None:
            pytest.skip("needs Chromium for the rest")
        drawn = subprocess.run(
            [
                CHROMIUM,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--virtual-time-budget=20000",
                "--dump-dom",
                address,
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout
        assert "Mamba4Rec: what comes next?" in drawn
        for title in ("Alien", "Aliens", "Brazil"):
            assert title in drawn
    finally:
        server.terminate()
        server.wait(timeout=30)


def wait_for(address, server, seconds=300):
    for _ in range(seconds * 2):
        assert server.poll() is None, "the page ended"
        try:
            with urllib.request.urlopen(f"{address}/config", timeout=5) as answer:
                return json.load(answer)
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.5)
    pytest.fail(f"no page at {address} after {seconds} s")
