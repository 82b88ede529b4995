import numpy as np
import pytest

from hf_seqrec.baselines.popularity import popularity_baseline
from hf_seqrec.data.leave_one_out import leave_one_out
from hf_seqrec.data.sequences import load_sequences
from hf_seqrec.ingest import synthetic
from hf_seqrec.ingest.synthetic import _number_word, _Readers, _ReadersOfMany, build_synthetic, generate_log
from hf_seqrec.metrics import ranking_metrics, ranks_from_scores


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return build_synthetic(tmp_path_factory.mktemp("synthetic") / "data")


def test_histories():
    log = generate_log(n_users=300, n_items=400, seed=1)
    assert log.lengths.min() >= 5
    assert (log.items >= 0).sum(axis=1).tolist() == log.lengths.tolist()
    for items, times, length in zip(log.items, log.timestamps, log.lengths, strict=True):
        assert len(set(items[:length])) == length  # nobody reads a volume twice
        assert (np.diff(times[:length]) >= 0).all()


def test_a_seed_is_a_dataset():
    first, again, other = (generate_log(n_users=50, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.items, again.items)
    assert np.array_equal(first.timestamps, again.timestamps)
    assert first.items.shape != other.items.shape or not np.array_equal(first.items, other.items)


def test_the_next_volume_by_hand():
    lengths = np.array([3, 3])
    readers = _Readers(np.random.default_rng(0), lengths, volumes=10)
    readers.mixtures[:] = 0
    readers.mixtures[0, :, 0], readers.mixtures[1, :, 1] = 1, 1  # from genre 0 to genre 1
    readers.paces[:] = [1, 2]
    stray = 0.05 * readers.popularity
    np.testing.assert_allclose(
        readers.next_volume(0, 2)[0], stray + 0.95 * np.r_[readers.volume_popularity[0], np.zeros(190)]
    )
    readers.read(np.array([9, 9]))
    # Volume 9 of 0..9 is read; by their pace, on the ring, the readers go on with 0 and with 1.
    halfway = readers.next_volume(1, 2)
    within = 0.9 * np.array([[0.75, 0.17, 0.08, 0], [0, 0.75, 0.17, 0.08]]) + 0.1 * readers.volume_popularity[0, :4]
    # Half of the mixture, and the same genre again counts 0.4; genre 1 is not yet begun.
    np.testing.assert_allclose(halfway[:, :4], 0.95 * 0.5 * 0.4 * within + stray[:4])
    np.testing.assert_allclose(
        halfway[:, 10:20], np.tile(0.95 * 0.5 * readers.volume_popularity[1] + stray[10:20], (2, 1))
    )
    assert halfway[:, 9].tolist() == [0, 0]


def test_best_ranks_are_honest():
    # If the generator's own ranking is right, an item it gives probability p is next with probability p: the mean
    # probability of its first choice equals how often that choice is right.
    rng = np.random.default_rng(0)
    lengths = np.full(4000, 20)
    readers, certainty, hits = _Readers(rng, lengths, volumes=25), [], []
    for t in range(20):
        probability = readers.next_volume(t, 4000)
        probability /= probability.sum(axis=1, keepdims=True)
        chosen = (probability.cumsum(axis=1) > rng.random(4000)[:, None]).argmax(axis=1)
        top = np.argpartition(-probability, 10, axis=1)[:, :10]
        certainty.append(np.take_along_axis(probability, top, 1).sum(axis=1).mean())
        hits.append((top == chosen[:, None]).any(axis=1).mean())
        readers.read(chosen)
    assert np.mean(hits) == pytest.approx(np.mean(certainty), abs=0.01)


def test_what_the_default_is_like(folder):
    sequences = load_sequences(folder)
    assert str(sequences) == "3,000 users / 500 items / 116,194 interactions"
    reachable = sequences.statistics["reachable"]
    assert reachable["hr@10"] == reachable["hr@10_with_seen"] == pytest.approx(0.780, abs=1e-3)
    assert reachable["ndcg@10"] == pytest.approx(0.552, abs=1e-3)
    splits = leave_one_out(sequences)
    assert popularity_baseline(splits.train, splits.test)["hr@10"] == pytest.approx(0.081, abs=1e-3)
    assert "HR@10 0.7803 and NDCG@10 0.55" in (folder / "README.md").read_text().replace("\n", " ")
    assert sequences.catalog.describe(sequences.catalog.encode(["mystery-21"])) == ["Mystery, Volume Twenty-One"]


def test_the_last_item_alone_is_not_enough(folder):
    sequences = load_sequences(folder)
    splits = leave_one_out(sequences)
    vocab_size, test = sequences.catalog.vocab_size, splits.test

    def metric(*lags):
        """HR@10 of counting which item follows which at these distances."""
        scores = np.zeros((len(test), vocab_size))
        for lag in lags:
            counts = np.zeros((vocab_size, vocab_size))
            for index in range(len(splits.train)):
                history = splits.train.history(index)
                np.add.at(counts, (history[:-lag], history[lag:]), 1)
            scores += counts[sequences.item_rows[test.stops - lag]]
        seen = [test.history(index).tolist() for index in range(len(test))]
        return ranking_metrics(ranks_from_scores(scores, test.targets, seen))["hr@10"]

    assert popularity_baseline(splits.train, test)["hr@10"] < 0.1 < metric(1) < 0.25
    assert 0.4 < metric(1, 2, 3, 4) < sequences.statistics["reachable"]["hr@10"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_items": 510}, "multiple of 20 genres, at least 200, got 510"),
        ({"n_items": 100}, "at least 200"),
        ({"n_users": 0}, "`n_users` must be at least 1"),
        ({"mean_length": 2.0}, "`mean_length` at least 5"),
    ],
)
def test_too_small(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        build_synthetic(tmp_path / "out", **arguments)


def test_number_words():
    assert [_number_word(n) for n in (1, 13, 20, 42, 99, 100)] == [
        "One", "Thirteen", "Twenty", "Forty-Two", "Ninety-Nine", "100",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def large_and_small():
    """Make the readers of large catalogs, and others of the same tastes whose distributions are written out."""
    lengths = np.sort(np.random.default_rng(0).integers(5, 40, 200))[::-1]
    many = _ReadersOfMany(np.random.default_rng(1), lengths, volumes=15)
    few = _Readers(np.random.default_rng(2), lengths, volumes=15)
    few.volume_popularity = many.by_place[many.place_of]
    few.popularity = (many.genre_popularity[:, None] * few.volume_popularity).ravel()
    few.within = np.tile(few.volume_popularity, (len(lengths), 1, 1))
    few.mixtures, few.paces = many.mixtures, many.paces
    return many, few


def test_ranks_of_large_catalogs_are_those_of_the_written_out_law(large_and_small):
    many, few = large_and_small
    rng = np.random.default_rng(3)
    items = np.full((200, many.lengths[0]), -1)
    for t in range(many.lengths[0]):
        readers = np.arange(np.count_nonzero(many.lengths > t))
        probability = few.next_volume(t, len(readers))
        # Both what is probable and what is not.
        chosen = np.where(readers % 2, probability.argmax(axis=1), rng.integers(300, size=len(readers)))
        was_read = (items[readers, :t] == chosen[:, None]).any(axis=1)
        chosen[was_read] = probability[was_read].argmax(axis=1)
        least = probability[readers, chosen][:, None] * (1 - 1e-12)
        expected = (probability >= least).sum(axis=1) - 1
        assert many.ranks(t, readers, chosen, items[readers, :t]).tolist() == expected.tolist()
        items[readers, t] = chosen
        few.read(chosen)
        many.read(chosen)


def test_draws_for_large_catalogs_follow_the_written_out_law():
    n_users, volumes = 40_000, 10
    many = _ReadersOfMany(np.random.default_rng(1), np.full(n_users, 5), volumes)
    # All of one taste and past.
    many.mixtures[:], many.paces[:] = many.mixtures[:, :1], 2
    few = _Readers(np.random.default_rng(2), np.full(1, 5), volumes)
    few.volume_popularity = many.by_place[many.place_of]
    few.popularity = (many.genre_popularity[:, None] * few.volume_popularity).ravel()
    few.within = np.tile(few.volume_popularity, (1, 1, 1))
    few.mixtures, few.paces = many.mixtures[:, :1], many.paces[:1]
    for item in (13, 57):
        few.read(np.array([item]))
        many.read(np.full(n_users, item))
    drawn = many.draw(np.random.default_rng(4), 2, np.arange(n_users))
    drawn = drawn[~np.isin(drawn, (13, 57))]
    expected = few.next_volume(2, 1)[0]
    expected /= expected.sum()
    frequencies = np.bincount(drawn, minlength=200) / len(drawn)
    # Five standard deviations.
    assert (abs(frequencies - expected) < 5 * np.sqrt(expected / len(drawn)) + 1e-9).all()


def test_a_large_catalog(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "_MOST_ITEMS_WRITTEN_OUT", 300)
    log = generate_log(n_users=300, n_items=400, seed=1)
    for items, length in zip(log.items, log.lengths, strict=True):
        assert len(set(items[:length])) == length
        assert (items[length:] == -1).all()
    sequences = load_sequences(build_synthetic(tmp_path / "all", 30, 400, keep_unread_items=True))
    some = load_sequences(build_synthetic(tmp_path / "read", 30, 400))
    assert sequences.catalog.n_items == 400
    assert some.catalog.n_items == np.count_nonzero(sequences.catalog.counts) < 400
    assert sequences.catalog.counts.tolist() == sorted(sequences.catalog.counts.tolist(), reverse=True)
    assert np.array_equal(some.item_rows, sequences.item_rows)
