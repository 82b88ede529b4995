import json

import pytest

from hf_seqrec.cli.card import main as write_cards
from hf_seqrec.cli.evaluate import main
from hf_seqrec.evaluation.results import read_results
from tests.helpers import small_model, walks


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "checkpoint"
    small_model(13).save_pretrained(folder)
    walks().catalog.save(folder)
    return str(folder)


@pytest.fixture
def log(tmp_path):
    lines = [f"u{user},id-{(user + event) % 12 + 1},{event}" for user in range(20) for event in range(6 + user % 5)]
    path = tmp_path / "shop.csv"
    path.write_text("\n".join(["user_id,item_id,timestamp", *lines]) + "\n")
    return str(path)


def test_baselines_beside_a_checkpoint(checkpoint, log, tmp_path, capsys):
    output = tmp_path / "mamba4rec.json"
    options = ["--device", "cpu", "--baselines", "popularity", "rules", "--output", str(output)]
    results = main([checkpoint, "--dataset", log, *options])
    assert read_results(output) == results
    printed = capsys.readouterr().out
    lines = [line.split() for line in printed.splitlines()]
    for name in ("popularity", "rules"):
        shown = [f"{results['baselines'][name][f'test_{metric}']:.4f}" for metric in ("hr@1", "ndcg@1", "mrr@1")]
        assert [name, *shown] in [line[:4] for line in lines]
    comparison = results["comparison"]
    assert f"{comparison['baseline']}, the best baseline" in printed
    assert f"p = {comparison['p_value']:.4g}" in printed

    write_cards([str(output)])
    card = output.with_suffix(".md").read_text()
    assert "| rules | test | full ranking, history excluded |" in card
    assert f"| {results['baselines']['rules']['test_ndcg@10']:.4f} |" in card
    assert f"p = {comparison['p_value']:.4g}" in card


def test_baselines_alone(log, tmp_path, capsys):
    output = tmp_path / "baselines.json"
    results = main(["--dataset", log, "--baselines", "rules", "--parts", "test", "--output", str(output)])
    assert json.loads(output.read_text()) == results
    assert "checkpoint" not in results
    assert results["dataset"] == "shop.csv"
    # Everybody goes from each item to the next: with the history, nothing is ahead of it.
    assert results["baselines"]["rules"]["test_hr@1_with_seen"] == 1.0
    printed = capsys.readouterr().out
    assert "Test, full ranking, history not excluded" in printed
    assert "rules" in printed
    for text in ("this model", "95 %", "Validation"):
        assert text not in printed
    with pytest.raises(ValueError, match=r"`results` must be of a model, got .*baselines\.json, which has baselines"):
        write_cards([str(output)])


def test_neither_a_checkpoint_nor_baselines(log):
    with pytest.raises(ValueError, match="`checkpoint` must be a folder or the id of a model on the Hub, got none"):
        main(["--dataset", log])


def test_a_baseline_that_is_none(log):
    with pytest.raises(ValueError, match=r"`baselines` must be `all` or among popularity, rules, .*, got markov"):
        main(["--dataset", log, "--baselines", "markov"])
