import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from hf_seqrec.baselines import fit_baseline
from hf_seqrec.checkpoints.card import render_model_card
from hf_seqrec.cli.evaluate import main
from hf_seqrec.data.catalog import Catalog
from hf_seqrec.data.leave_one_out import leave_one_out
from hf_seqrec.data.sequences import Sequences
from hf_seqrec.evaluation.evaluate_checkpoint import EvaluationArguments, evaluate_checkpoint
from hf_seqrec.evaluation.matched_view import match_catalog, model_rows
from hf_seqrec.evaluation.protocol import EvaluationProtocol
from hf_seqrec.evaluation.rank_users import describe, rank_users
from hf_seqrec.metrics import ranking_metrics
from hf_seqrec.training.trainer import SeqRecTrainer
from hf_seqrec.training.training_args import SeqRecTrainingArguments
from tests.helpers import sequences_of, small_model, walks

SAMPLED = {"eval_protocol": "sampled", "eval_negatives": 1, "eval_negatives_distribution": "popularity"}


def with_ids(sequences, item_ids):
    """Give the items of a dataset other raw ids."""
    return Sequences(sequences.item_rows, sequences.offsets, Catalog.from_items(item_ids), sequences.user_ids)


def evaluated(model, catalog, sequences, **arguments):
    return evaluate_checkpoint(model, catalog, sequences, arguments=EvaluationArguments(device="cpu", **arguments))


@pytest.fixture(scope="module")
def long_walks():
    """Make walks over more items than anybody has seen."""
    return walks(n_items=30)


@pytest.mark.parametrize("protocol", [{}, SAMPLED, SAMPLED | {"eval_negatives": 9}], ids=str)
def test_the_numbers_of_the_trainer(tmp_path, long_walks, protocol):
    splits = leave_one_out(long_walks)
    model = small_model(31)
    trainer = SeqRecTrainer(
        model,
        SeqRecTrainingArguments(
            output_dir=str(tmp_path),
            max_length=6,
            per_device_eval_batch_size=16,
            use_cpu=True,
            disable_tqdm=True,
            report_to="none",
            **protocol,
        ),
        train_dataset=splits.train,
        eval_dataset=splits.validation,
    )
    expected = trainer.evaluate() | trainer.evaluate(splits.test, metric_key_prefix="test")
    results = evaluated(model, long_walks.catalog, long_walks, max_length=6, batch_size=16, **protocol)
    shared = {name: value for name, value in expected.items() if "@" in name}
    assert len(shared) == 2 * 12 * len(trainer.protocol.rankings)
    assert shared.items() <= results["metrics"].items()
    for name in ("eval_loss", "test_loss"):
        assert results["metrics"][name] == pytest.approx(expected[name])
    assert trainer.protocol.description in results["protocol"]


def test_the_order_of_the_dataset_is_nothing_to_the_model(long_walks):
    # The same histories, from a dataset whose catalog has the same items in another order, and one more.
    order = np.random.default_rng(0).permutation(30)
    places = np.empty(30, dtype=np.int32)
    places[order] = np.arange(1, 31)
    ids = long_walks.catalog.item_ids.to_pylist()
    other = Sequences(
        places[long_walks.item_rows - 1],
        long_walks.offsets,
        Catalog.from_items([*(ids[item] for item in order), "new"]),
        long_walks.user_ids,
    )
    model = small_model(31)
    same, moved = (evaluated(model, long_walks.catalog, data, max_length=6) for data in (long_walks, other))
    assert moved["metrics"] == same["metrics"]
    assert moved["intervals"] == same["intervals"]
    assert moved["breakdowns"] == same["breakdowns"]
    assert moved["split_counts"]["items that the checkpoint does not know"] == 1
    assert moved["split_counts"]["test: users with an unknown target"] == 0


def test_unknown_items_are_counted_and_excluded_or_missed():
    # The model knows a to d. Test targets: d; e, unknown; d with nothing but unknown before; b after an unknown.
    dataset = with_ids(sequences_of([1, 2, 3, 4], [1, 2, 3, 5], [5, 6, 5, 4], [1, 5, 3, 2], n_items=6), list("abcdef"))
    catalog = Catalog.from_items(list("dcba"))
    view, rows = leave_one_out(dataset).test, model_rows(dataset.catalog, catalog)
    assert rows.tolist() == [0, 4, 3, 2, 1, 0, 0]
    matched = match_catalog(view, rows, catalog)
    assert matched.is_ranked.tolist() == [True, False, False, True]
    assert matched[2:] == (1, 1, 4)
    assert [matched.view.history(user).tolist() for user in range(2)] == [[4, 3, 2], [4, 2]]
    assert matched.view.targets.tolist() == [1, 3]
    assert matched.view.users.tolist() == [0, 3]

    model = small_model(5)
    excluded, missed = (
        evaluated(model, catalog, dataset, parts=["test"], unknown_items=how) for how in ("exclude", "miss")
    )
    # Of two users, and of four of whom two are missed.
    for name in ("test_hr@1", "test_ndcg@5", "test_mrr@20_with_seen"):
        assert missed["metrics"][name] == pytest.approx(excluded["metrics"][name] / 2)
    assert excluded["metrics"]["test_hr@20"] == 1.0
    assert "are left out" in excluded["protocol"]
    assert "count as missed" in missed["protocol"]
    assert sum(group["n_users"] for group in missed["breakdowns"]["test"]["history length"].values()) == 4


def test_details_by_hand():
    # Three users; a model that scores items by their row, highest first, whatever the history.
    sequences = sequences_of([1, 2, 4], [1, 2, 3], [4, 3, 1, 1, 2], n_items=4)
    splits = leave_one_out(sequences)
    model = small_model(5)
    protocol = EvaluationProtocol()
    ranked = rank_users(model, splits.test, protocol, top_k=2)
    counts = splits.train.item_counts()
    described = describe(
        ranked, protocol, splits.test, np.ones(3, dtype=bool), counts, counts, k=[1, 2], length_edges=[3]
    )
    assert described["metrics"]["hr@2"] == ranking_metrics(ranked.ranks[0], 2)["hr@2"]
    for user in range(3):
        seen = splits.test.history(user).tolist()
        scores = model(torch.tensor([seen])).logits[0]
        scores[seen] = -torch.inf
        left = torch.isfinite(scores).sum()
        best = scores.argsort(descending=True)[: min(2, left)].tolist()
        assert ranked.recommended[user].tolist() == best + [0] * (2 - len(best))
    items = set(ranked.recommended.flatten().tolist()) - {0}
    assert described["metrics"]["coverage@2"] == len(items) / 4
    assert described["breakdowns"]["history length"].keys() == {"2", "3+"}
    low, high = described["intervals"]["hr@2_with_seen"]
    assert low <= described["metrics"]["hr@2_with_seen"] <= high


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "checkpoint"
    small_model(13).save_pretrained(folder)
    walks().catalog.save(folder)
    (folder / "training_args.json").write_text(json.dumps({"max_length": 7}))
    return folder


def test_from_a_log_to_a_card(checkpoint, tmp_path, capsys):
    log = tmp_path / "shop.csv"
    lines = [f"u{user},id-{(user + event) % 12 + 1},{event}" for user in range(20) for event in range(6 + user % 5)]
    log.write_text("\n".join(["user_id,item_id,timestamp", *lines]) + "\n")
    output = tmp_path / "results" / "result.json"
    results = main([str(checkpoint), "--dataset", str(log), "--device", "cpu", "--output", str(output)])
    assert json.loads(output.read_text()) == results
    assert results["max_length"] == 7
    assert results["split_counts"]["users evaluated"] == 20
    printed = capsys.readouterr().out
    assert "Test, full ranking, history excluded" in printed
    assert "Test by target popularity" in printed
    assert f"{results['metrics']['test_ndcg@10']:.4f}" in printed
    card = str(render_model_card("mamba4rec", 12, results))
    for text in (results["protocol"], "95 % bootstrap intervals", "Test by history length", results["command"]):
        assert text in card
    assert f"{results['metrics']['test_ndcg@10_with_seen']:.4f}" in card


class TestErrors:
    def test_no_item_in_common(self):
        with pytest.raises(ValueError, match=r"4 items \(such as 'a'\) .* 3 \(such as 'id-1'\) share no raw item id"):
            model_rows(sequences_of([1, 2, 3]).catalog, Catalog.from_items(list("abcd")))

    def test_no_user_who_can_be_evaluated(self):
        dataset = with_ids(sequences_of([1, 2, 1, 3], [2, 1, 2, 3]), list("abc"))
        with pytest.raises(ValueError, match=r"No user can be evaluated: of 2 users .* target of 0, .* history of 2"):
            evaluated(small_model(3), Catalog.from_items(["a", "b"]), dataset, parts=["test"])

    def test_infinite_scores(self, long_walks):
        model = small_model(31)
        model.item_embeddings.weight.data[3] = torch.inf
        with pytest.raises(ValueError, match=r"of the 40 users of this batch are NaN or infinite"):
            evaluated(model, long_walks.catalog, long_walks)

    def test_a_cut_off_beyond_what_is_ranked(self, long_walks):
        for protocol, n_ranked in (({}, 30), (SAMPLED, 2)):
            with pytest.raises(ValueError, match=f"`k` must be at most the {n_ranked} items that are ranked, got 50"):
                evaluated(small_model(31), long_walks.catalog, long_walks, k=[5, 50], **protocol)

    def test_more_negatives_than_unseen_items(self, long_walks):
        with pytest.raises(ValueError, match="`eval_negatives` must be at most the"):
            evaluated(small_model(31), long_walks.catalog, long_walks, eval_protocol="sampled", eval_negatives=29)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"parts": ["train"]}, "`parts` must be among validation, test, got train"),
            ({"unknown_items": "keep"}, "`unknown_items` must be 'exclude' or 'miss', got 'keep'"),
            ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
            ({"n_resamples": 0}, "`n_resamples` must be at least 1, got 0"),
            ({"max_length": 0}, "`max_length` must be at least 1, got 0"),
            ({"k": [0]}, "`k` must be cut-offs of at least 1"),
        ],
    )
    def test_arguments(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            EvaluationArguments(**arguments)


def test_the_library_of_the_same_name_is_still_found():
    script = (
        "import hf_seqrec.evaluation.evaluate_checkpoint, evaluate\n"
        "assert not evaluate.__name__.startswith('hf_seqrec')\nevaluate.load"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class TestBaselines:
    """A baseline is ranked as a model is."""

    def test_the_numbers_of_popularity(self, long_walks):
        splits = leave_one_out(long_walks)
        ranked = rank_users(fit_baseline("popularity", splits.train), splits.test)
        expected = EvaluationProtocol().popularity(splits.train, splits.test)
        found = EvaluationProtocol().metrics(ranked.ranks)
        assert found == pytest.approx(expected)
        assert ranked.loss is None

    @pytest.mark.parametrize("distribution", ["uniform", "popularity"])
    def test_the_numbers_of_popularity_among_negatives(self, long_walks, distribution):
        splits = leave_one_out(long_walks)
        protocol = EvaluationProtocol("sampled", 4, distribution)
        ranked = rank_users(
            fit_baseline("popularity", splits.train), splits.test, protocol, splits.train.item_counts()
        )
        assert protocol.metrics(ranked.ranks) == pytest.approx(protocol.popularity(splits.train, splits.test))

    def test_described(self, long_walks):
        splits = leave_one_out(long_walks)
        # Batches of 7: the last is smaller.
        ranked = rank_users(fit_baseline("rules", splits.train), splits.test, batch_size=7)
        counts, everybody = splits.train.item_counts(), np.ones(len(splits.test), dtype=bool)
        described = describe(ranked, EvaluationProtocol(), splits.test, everybody, counts, counts, k=[10])
        assert "loss" not in described["metrics"]
        # Nine of ten steps go to the next item.
        assert described["metrics"]["hr@10_with_seen"] > 0.9
        low, high = described["intervals"]["hr@10"]
        assert low <= described["metrics"]["hr@10"] <= high
        assert list(described["breakdowns"]) == ["history length", "target popularity"]

    def test_what_is_recommended_is_not_in_the_history(self, long_walks):
        splits = leave_one_out(long_walks)
        ranked = rank_users(fit_baseline("item_knn", splits.train), splits.test, top_k=30)
        for user, rows in enumerate(ranked.recommended):
            seen = set(splits.test.history(user).tolist())
            left = rows[rows > 0].tolist()
            assert sorted(left) == sorted(set(range(1, 31)) - seen)

    def test_whole_histories_are_read(self):
        # Test histories have four and three events; `max_length` is for models.
        splits = leave_one_out(sequences_of([1, 9, 8, 2, 3], [4, 9, 8, 5], n_items=9))
        baseline = fit_baseline("popularity", splits.train)
        lengths = []
        baseline._scores = lambda ids: lengths.append(ids.shape[1]) or torch.zeros(len(ids), 10)
        rank_users(baseline, splits.test, max_length=1, top_k=1)
        assert lengths == [4]
