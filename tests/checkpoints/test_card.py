import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

import hf_seqrec
from hf_seqrec import Mamba4RecConfig
from hf_seqrec.checkpoints.card import of_repository, render_model_card, write_model_card
from hf_seqrec.cli.card import main
from hf_seqrec.evaluation.protocol import EvaluationProtocol

CARDS = Path(__file__).parents[2] / "model_cards"
RESULTS = {
    "model_type": "mamba4rec",
    "dataset": "data/shop",
    "statistics": {
        **{"n_users": 6040, "n_items": 1000, "n_interactions": 50_000, "density": 50_000 / 6_040_000},
        "history_length": {"min": 3, "median": 7.0, "mean": 8.28, "max": 90},
        "steps": [
            {"name": "shop.csv", "n_users": 7000, "n_items": 2000, "n_interactions": 60_000},
            {"name": "5-core", "n_users": 6040, "n_items": 1000, "n_interactions": 50_000},
        ],
        "about": {"licence": "For research only.", "homepage": "https://shop.example", "citation": "@misc{shop}"},
    },
    "protocol": "leave-one-out: the last event for test, full ranking over the catalog",
    "metrics": {"eval_ndcg@10": 0.25, "test_ndcg@10": 0.2, "test_hr@10": 0.3, "test_ndcg@10_with_seen": 0.125},
    "best_step": 30,
    "epochs": 4.0,
    "train_seconds": 1234.5,
    "parameters": 290_944,
    "command": "hf-seqrec train",
    "seed": 42,
    "versions": {"torch": "2.13.0"},
    "commit": "abc123",
    "hardware": {"device": "cpu", "threads": 2, "processes": 1, "peak_memory_bytes": 2**30},
}


def test_a_checkpoint_without_results_says_so():
    card = render_model_card("sasrec", 1000, None)
    assert "Nothing was measured with this checkpoint." in card.text
    assert "over 1,000 items" in card.text
    assert card.data.eval_results is None
    # What holds for any checkpoint is there all the same.
    for text in ("No cold items", "Popularity bias", "## Use", "## Licence", "## Citation"):
        assert text in card.text


def test_a_run_in_two_parts_says_what_its_time_is_of():
    card = render_model_card("mamba4rec", 1000, RESULTS | {"resumed_from": "checkpoint-20"})
    assert "4 epochs in 1,234 s since it went on from checkpoint-20 on cpu" in card.text


def test_the_hub_reads_what_was_measured(tmp_path):
    card = render_model_card("mamba4rec", 1000, RESULTS)
    card.save(tmp_path / "README.md")
    read = ModelCard.load(tmp_path / "README.md").data.eval_results
    assert read == card.data.eval_results
    assert {result.metric_type: result.metric_value for result in read} == {
        **{"ndcg@10": 0.2, "hr@10": 0.3, "ndcg@10_with_seen": 0.125},
    }
    # No number without what it is a number of.
    for result in read:
        assert result.dataset_split == "test"
        assert result.dataset_args == {"protocol": RESULTS["protocol"]}
        assert ("history not excluded" in result.metric_name) == result.metric_type.endswith("_with_seen")


def test_everything_that_was_recorded_is_in_the_card():
    text = render_model_card("mamba4rec", 1000, RESULTS).text
    for fact in (
        "Data: shop, 6,040 users, 1,000 items, 50,000 interactions; 3 to 90 events a user, median 7, mean 8.28",
        "0.8278% of all pairs; filtered: 5-core (50,000 left).",
        "Protocol: leave-one-out: the last event for test",
        "Trained for 4 epochs in 1,234 s on cpu (2 threads, 1 process(es)), at most 1.0 GiB of memory, seed 42",
        "commit abc123",
        "Licence of the data: For research only.",
        "https://shop.example",
        "```bibtex\n@misc{shop}\n```",
        "Mamba4Rec (Liu et al. 2024, https://arxiv.org/abs/2403.03900)",
    ):
        assert fact in text


def test_baselines_stand_under_the_model():
    baselines = {
        "popularity": {"test_ndcg@10": 0.0625, "test_ndcg@10_with_seen": 0.03125},
        "rules": {"eval_hr@5": 0.5},
    }
    comparison = {
        **{"metric": "test_ndcg@10", "baseline": "popularity", "difference": 0.1375, "interval": [0.125, 0.15]},
        **{"p_value": 0.0002, "n_users": 6040},
    }
    measured = {"baselines": baselines, "comparison": comparison, "rankings": EvaluationProtocol().rankings}
    text = render_model_card("mamba4rec", 1000, RESULTS | measured).text
    table = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    assert [line[:3] for line in table] == [
        ["recommender", "split", "ranking"],
        ["---", "---", "---"],
        ["mamba4rec", "validation", "full ranking, history excluded"],
        ["rules", "validation", "full ranking, history excluded"],
        ["mamba4rec", "test", "full ranking, history excluded"],
        ["popularity", "test", "full ranking, history excluded"],
        ["mamba4rec", "test", "full ranking, history not excluded"],
        ["popularity", "test", "full ranking, history not excluded"],
    ]
    assert "0.0625" in table[5]
    assert (
        "Test NDCG@10, full ranking, history excluded: the model is 0.1375 above popularity, the best baseline (95 % "
        "interval of the difference +0.1250 to +0.1500, p = 0.0002; paired bootstrap over 6,040 users)." in text
    )
    # Without baselines there is no column for who it is.
    assert "recommender |" not in render_model_card("mamba4rec", 1000, RESULTS).text


def test_a_licence_that_nobody_recorded():
    statistics = {name: value for name, value in RESULTS["statistics"].items() if name != "about"}
    text = render_model_card("mamba4rec", 1000, RESULTS | {"statistics": statistics}).text
    assert "The licence of the data (shop) was not recorded" in text


def test_curves_are_shown_where_they_were_drawn(tmp_path):
    config = Mamba4RecConfig(vocab_size=1001)
    assert "curves.png" not in write_model_card(tmp_path, config, RESULTS).read_text()
    (tmp_path / "curves.png").write_bytes(b"picture")
    assert "](curves.png)" in write_model_card(tmp_path, config, RESULTS).read_text()


def test_the_name_of_the_repository():
    card = of_repository(str(render_model_card("mamba4rec", 1000, RESULTS)), "org/shop", "mit")
    assert 'Recommender.from_pretrained("org/shop")' in card
    assert "this/repository" not in card
    assert "No licence was chosen" not in card
    assert ModelCard(card).data.license == "mit"
    assert ModelCard(card).data.eval_results == render_model_card("mamba4rec", 1000, RESULTS).data.eval_results
    # A licence that the card has already is not replaced.
    assert ModelCard(of_repository(card, "org/shop", "cc-by-4.0")).data.license == "mit"


@pytest.mark.parametrize("model_type", hf_seqrec.MODEL_TYPES)
def test_every_model_names_those_who_proposed_it(model_type):
    citation = render_model_card(model_type, 10, None).text.split("## Citation")[1]
    assert hf_seqrec.model_class(model_type).__name__ in citation
    assert "https://" in citation


@pytest.mark.parametrize("path", sorted(CARDS.glob("*/*.json")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_published_card_is_what_its_results_say(path, tmp_path):
    results = json.loads(path.read_text(encoding="utf-8"))
    card = ModelCard.load(path.with_suffix(".md"))
    assert f"| {results['metrics']['test_ndcg@10']:.4f} |" in card.text
    assert results["command"] in card.text
    assert results["commit"] in card.text
    # What the Hub reads is what was measured.
    read = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert read["NDCG@10, full ranking, history excluded"] == round(results["metrics"]["test_ndcg@10"], 4)
    # And it was rendered by this version.
    copy = tmp_path / path.name
    copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    if path.with_suffix(".png").is_file():
        copy.with_suffix(".png").touch()
    main([str(copy)])
    assert copy.with_suffix(".md").read_text(encoding="utf-8") == path.with_suffix(".md").read_text(encoding="utf-8")


def test_curves_beside_a_file_of_results(tmp_path):
    path = tmp_path / "mamba4rec.json"
    path.write_text(json.dumps(RESULTS))
    main([str(path)])
    assert "![" not in path.with_suffix(".md").read_text()
    path.with_suffix(".png").touch()
    main([str(path)])
    assert "](mamba4rec.png)" in path.with_suffix(".md").read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"model_type": "sasrec"}', "does not hold results: .*metrics is missing"),
        ("[1, 2]", "does not hold results: a list, no mapping"),
        ("# A card", "is not JSON"),
    ],
)
def test_a_file_that_holds_no_results(tmp_path, content, message):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        main([str(path)])
    assert not path.with_suffix(".md").exists()
