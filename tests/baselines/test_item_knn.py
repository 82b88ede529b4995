import numpy as np
import pytest

from hf_seqrec.baselines import neighbors
from hf_seqrec.baselines.item_knn import ItemKNN, LastItemKNN


def by_definition(histories, n_items, shrinkage=0.0):
    """Cosine similarities `(n_items, n_items)` as two loops over the items."""
    users = [{user for user, history in enumerate(histories) if item in history} for item in range(1, n_items + 1)]
    similarities = np.zeros((n_items, n_items))
    for i in range(n_items):
        for j in range(n_items):
            if i != j and users[i] & users[j]:
                both = len(users[i] & users[j])
                similarities[i, j] = both / (np.sqrt(len(users[i]) * len(users[j])) + shrinkage)
    return similarities


# Users of item 1: three; of 2 and 3: the first two; of 4: the last. That 1 is there twice makes no difference.
HISTORIES = ([1, 2, 3, 1], [3, 1, 2], [4, 1])


def test_by_hand(train_view, score):
    knn = ItemKNN(decay=0.5, shrinkage=0).fit(train_view(*HISTORIES, n_items=5))
    one_two, one_four = 2 / np.sqrt(6), 1 / np.sqrt(3)
    found = score(knn, [4, 2])[0]
    np.testing.assert_allclose(found[[0, 2]], [one_two + 0.5 * one_four, 1], rtol=1e-6)
    # No neighbours of 4 or 2: themselves and the item that nobody has. Counts are 0, 1 and 2 (2 and 3), 4: 4 places.
    np.testing.assert_allclose(found[[1, 3, 4]], [-2 / 4, -3 / 4, -1], rtol=1e-6)


def test_shrinkage_by_hand(train_view, score):
    knn = ItemKNN(shrinkage=2).fit(train_view(*HISTORIES))
    np.testing.assert_allclose(score(knn, [2])[0, [0, 2]], [2 / (np.sqrt(6) + 2), 2 / (2 + 2)], rtol=1e-6)


def test_the_nearest_neighbors_by_hand(train_view, score):
    # Of 1: 2 and 3 with .816, of which the lower row stays; 4 with .577.
    knn = ItemKNN(n_neighbors=1).fit(train_view(*HISTORIES))
    assert (score(knn, [1])[0] > 0).tolist() == [False, True, False, False]


def test_the_last_item_alone(train_view, score):
    last = LastItemKNN(shrinkage=0).fit(train_view(*HISTORIES))
    found = score(last, [4, 2], [3, 1, 2], [2])
    np.testing.assert_allclose(found[0, [0, 2]], [2 / np.sqrt(6), 1], rtol=1e-6)
    np.testing.assert_array_equal(found[1:], found[:-1])


@pytest.mark.parametrize("seed", range(8))
def test_against_the_definition(train_view, random_histories, score, seed):
    histories = random_histories(seed)
    generator = np.random.default_rng(seed)
    max_history = [None, 1, 4][seed % 3]
    decay, shrinkage = generator.uniform(0.1, 1), seed % 2 * 3.5
    knn = ItemKNN(20, max_history, decay, shrinkage).fit(train_view(*histories, n_items=12))
    similarities = by_definition(histories, 12, shrinkage)
    for history, found in zip(histories, score(knn, *histories), strict=True):
        recent = history[::-1][:max_history]
        expected = sum(decay**age * similarities[item - 1] for age, item in enumerate(recent))
        np.testing.assert_allclose(found[expected > 0], expected[expected > 0], rtol=1e-5)
        assert (found[expected == 0] < 0).all()


@pytest.mark.parametrize("pairs_at_once", [1, 20, 50])
def test_the_size_of_blocks_changes_nothing(monkeypatch, train_view, random_histories, pairs_at_once):
    view = train_view(*random_histories(0))
    whole = ItemKNN(n_neighbors=4).fit(view)
    monkeypatch.setattr(neighbors, "PAIRS_AT_ONCE", pairs_at_once)
    np.testing.assert_array_equal(ItemKNN(n_neighbors=4).fit(view)._table.toarray(), whole._table.toarray())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_neighbors": 0}, "`n_neighbors` must be at least 1, got 0"),
        ({"max_history": 0}, "`max_history` must be at least 1, got 0"),
        ({"decay": -0.1}, "`decay` must be between 0 and 1, got -0.1"),
        ({"shrinkage": -1}, "`shrinkage` must be at least 0, got -1"),
    ],
)
def test_errors(parameters, message):
    with pytest.raises(ValueError, match=message):
        ItemKNN(**parameters)
