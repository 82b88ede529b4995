import numpy as np
import pytest

from hf_seqrec.metrics.negatives import draw_negatives, popularity_weights, protocol_name

VOCAB_SIZE = 60
COUNTS = np.concatenate([[0], 1000 // np.arange(1, VOCAB_SIZE)])


def draw(distribution: str, **arguments) -> np.ndarray:
    if distribution == "popularity":
        arguments.setdefault("item_counts", COUNTS)
    return draw_negatives(distribution=distribution, **arguments)


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
@pytest.mark.parametrize("n_negatives", [1, 20, 48])
def test_never_the_target_nor_the_history_nor_twice(distribution, n_negatives):
    generator = np.random.default_rng(0)
    targets = generator.integers(1, VOCAB_SIZE, size=200)
    # Repeats and padding inside: at most 10 items seen, and the target, so that at least 48 are left.
    seen = generator.integers(0, VOCAB_SIZE, size=(200, 10))
    negatives = draw(distribution, targets=targets, seen=seen, vocab_size=VOCAB_SIZE, n_negatives=n_negatives)
    assert negatives.shape == (200, n_negatives)
    for user in range(200):
        drawn = set(negatives[user].tolist())
        assert len(drawn) == n_negatives
        assert not drawn & {0, int(targets[user]), *seen[user].tolist()}
        assert drawn <= set(range(1, VOCAB_SIZE))


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_all_that_is_left_can_be_drawn(distribution):
    seen = [[5, 3, 3], [], [9]]
    negatives = draw(
        distribution, targets=[1, 2, 9], seen=seen, vocab_size=10, n_negatives=6, item_counts=np.arange(10)
    )
    assert sorted(negatives[0]) == [2, 4, 6, 7, 8, 9]
    with pytest.raises(ValueError, match="at most the 6 items left to draw for user 0, got 7"):
        draw(distribution, targets=[1], seen=seen[:1], vocab_size=10, n_negatives=7, item_counts=np.arange(10))


def test_uniform_draws_each_item_left_equally_often():
    n_users = 20_000
    negatives = draw_negatives(np.full(n_users, 4), np.full((n_users, 2), (2, 7)), vocab_size=10, n_negatives=2)
    counts = np.bincount(negatives.ravel(), minlength=10)
    assert (counts[[0, 2, 4, 7]] == 0).all()
    # Each of 6 items left is drawn by a third of the users; five standard deviations are 5 * sqrt(n * 1/3 * 2/3).
    np.testing.assert_allclose(counts[[1, 3, 5, 6, 8, 9]], n_users / 3, atol=5 * np.sqrt(n_users * 2 / 9))


@pytest.mark.parametrize(
    # With a heavy item excluded, draws with replacement hardly ever succeed and the exact finish takes over.
    "heavy",
    [0.0, 1e9],
)
def test_popularity_draws_one_after_the_other_in_proportion(heavy):
    n_users = 5_000
    weights = np.array([0.0, heavy, 1.0, 2.0, 3.0])
    negatives = draw_negatives(
        np.full(n_users, 1), np.zeros((n_users, 1), int), 5, 2, "popularity", item_counts=weights
    )
    # Items 2, 3, 4 with 1/6, 2/6, 3/6, then the rest in proportion: worked out for the six ordered pairs.
    expected = {(2, 3): 1 / 6 * 2 / 5, (2, 4): 1 / 6 * 3 / 5, (3, 2): 2 / 6 * 1 / 4}
    expected |= {(3, 4): 2 / 6 * 3 / 4, (4, 2): 3 / 6 * 1 / 3, (4, 3): 3 / 6 * 2 / 3}
    for pair, probability in expected.items():
        share = (negatives == pair).all(axis=1).mean()
        assert share == pytest.approx(probability, abs=5 * np.sqrt(probability / n_users))


def test_alpha_flattens_popularity_but_keeps_out_what_nobody_had():
    n_users = 5_000
    counts = [0, 0, 1, 100, 50]
    users = {"targets": np.full(n_users, 4), "seen": np.zeros((n_users, 1), int), "vocab_size": 5, "n_negatives": 1}
    flat = draw_negatives(**users, distribution="popularity", item_counts=counts, alpha=0.0)
    steep = draw_negatives(**users, distribution="popularity", item_counts=counts, alpha=1.0)
    assert set(flat.ravel()) == {2, 3}
    assert (flat == 3).mean() == pytest.approx(1 / 2, abs=0.04)
    assert (steep == 3).mean() == pytest.approx(100 / 101, abs=0.01)


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_a_seed_decides_every_draw(distribution):
    users = {"targets": [1, 2, 3], "seen": [[4], [5], [6]], "vocab_size": VOCAB_SIZE, "n_negatives": 20}
    first = draw(distribution, **users, seed=1)
    np.testing.assert_array_equal(first, draw(distribution, **users, seed=1))
    assert (first != draw(distribution, **users, seed=2)).any(axis=1).all()


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_a_named_user_has_the_same_negatives_in_any_batch(distribution):
    common = {"vocab_size": VOCAB_SIZE, "n_negatives": 20}
    together = draw(distribution, targets=[1, 2, 3], seen=[[4], [5], [6]], users=[70, 80, 90], **common)
    alone = draw(distribution, targets=[3], seen=[[6, 0, 0]], users=[90], **common)
    np.testing.assert_array_equal(together[2], alone[0])


def test_a_large_catalog_costs_no_more():
    negatives = draw_negatives([10**9], [np.arange(1, 1000)], vocab_size=2 * 10**9, n_negatives=100)
    assert len(set(negatives[0].tolist())) == 100
    assert negatives.min() >= 1000


def test_protocol_name():
    assert protocol_name(100) == "100_uniform"
    assert protocol_name(1000, "popularity") == "1000_popularity"
    assert protocol_name(100, "popularity", 0.75) == "100_popularity^0.75"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_negatives": 0}, "`n_negatives` must be at least 1, got 0"),
        ({"distribution": "hard"}, "`distribution` must be 'uniform' or 'popularity', got 'hard'"),
        ({"distribution": "popularity"}, "`item_counts` must be given .* the training histories"),
        ({"distribution": "popularity", "item_counts": [1, 2]}, "one count for each of 60 rows"),
        ({"distribution": "popularity", "item_counts": np.full(VOCAB_SIZE, -1)}, "finite and not negative"),
        ({"distribution": "popularity", "item_counts": np.full(VOCAB_SIZE, np.nan)}, "finite and not negative"),
        # Rows 7, 8 and 9 are the only ones with a count, and 7 is the target.
        (
            {"distribution": "popularity", "item_counts": np.eye(VOCAB_SIZE)[7:10].sum(0), "n_negatives": 3},
            "the 2 items",
        ),
        ({"targets": [60]}, "in 0 to 59 .*, got 60 for user 0"),
        ({"seen": [[-1]]}, "in 0 to 59 .*, got -1 for user 0"),
        ({"seen": [[1], [2]]}, "the same users, got 1 targets, 2 histories"),
    ],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_negatives(**{"targets": [7], "seen": [[1]], "vocab_size": VOCAB_SIZE, "n_negatives": 5} | arguments)


def test_weights_computed_before_draw_the_same():
    counts = [0, 5, 0, 1, 9, 2, 2, 7]
    weights = popularity_weights(counts, vocab_size=8, alpha=0.5)
    assert weights.n_drawn == 6
    arguments = {
        "targets": [1, 4],
        "seen": [[3], [5, 0]],
        "vocab_size": 8,
        "n_negatives": 3,
        "distribution": "popularity",
    }
    drawn = draw_negatives(**arguments, item_counts=weights, seed=4)
    assert drawn.tolist() == draw_negatives(**arguments, item_counts=counts, alpha=0.5, seed=4).tolist()
    with pytest.raises(ValueError, match="weights of 9 rows, got 8"):
        draw_negatives(**(arguments | {"vocab_size": 9}), item_counts=weights)
