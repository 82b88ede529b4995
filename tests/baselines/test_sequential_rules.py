import numpy as np
import pytest

from hf_seqrec.baselines import neighbors, sequential_rules
from hf_seqrec.baselines.sequential_rules import SequentialRules


def by_definition(histories, n_items, window):
    """Weights of all pairs of items `(n_items, n_items)`, as two loops over the events of each history."""
    weights = np.zeros((n_items, n_items))
    for history in histories:
        for place, item in enumerate(history):
            for other in range(place + 1, min(place + window, len(history) - 1) + 1):
                weights[item - 1, history[other] - 1] += 1 / (other - place)
    totals = weights.sum(axis=1, keepdims=True)
    return np.divide(weights, totals, out=np.zeros_like(weights), where=totals > 0)


def test_by_hand(train_view, score):
    # 1 -> 2: 1 + 1/2; 1 -> 3: 1/2 + 1; 2 -> 3: 1; 3 -> 2: 1. So 1 leads to 2 and 3 alike, and nothing leads to 1.
    view = train_view([1, 2, 3], [1, 3, 2], n_items=4)
    rules = SequentialRules(window=2, decay=0.5).fit(view)
    # Items 1 and 4 have no evidence: 4 never occurs, all others twice.
    expected = [[-0.5, 0.25, 1 + 0.25, -1], [-0.5, 0.5, 0.5, -1], [-0.5, -0.5, -0.5, -1]]
    np.testing.assert_allclose(score(rules, [1, 2], [1], [4]), expected, rtol=1e-6)


def test_a_markov_chain_by_hand(train_view, score):
    # What follows 1 at once: 2 twice, 3 once.
    rules = SequentialRules(window=1, max_history=1).fit(train_view([1, 2, 1, 3], [1, 2, 3]))
    np.testing.assert_allclose(score(rules, [3, 1])[0, 1:], [2 / 3, 1 / 3], rtol=1e-6)


def test_an_item_may_follow_itself(train_view, score):
    rules = SequentialRules(window=1).fit(train_view([1, 1, 2]))
    np.testing.assert_allclose(score(rules, [1]), [[0.5, 0.5]])


def test_nothing_crosses_from_one_user_to_the_next(train_view, score):
    rules = SequentialRules(window=10).fit(train_view([1, 2], [3, 4]))
    assert (score(rules, [2], [1]) > 0).tolist() == [[False] * 4, [False, True, False, False]]


@pytest.mark.parametrize("seed", range(8))
def test_against_the_definition(train_view, random_histories, score, seed):
    histories = random_histories(seed)
    generator = np.random.default_rng(seed)
    window, max_history = int(generator.integers(1, 12)), int(generator.integers(1, 9))
    decay = generator.uniform(0.1, 1)
    rules = SequentialRules(window, max_history, decay).fit(train_view(*histories, n_items=12))
    weights = by_definition(histories, 12, window)
    for history, found in zip(histories, score(rules, *histories), strict=True):
        recent = history[::-1][:max_history]
        expected = sum(decay**age * weights[item - 1] for age, item in enumerate(recent))
        np.testing.assert_allclose(found[expected > 0], expected[expected > 0], rtol=1e-5)
        assert (found[expected == 0] < 0).all()


@pytest.mark.parametrize("pairs_at_once", [1, 7, 60])
def test_the_size_of_blocks_changes_nothing(monkeypatch, train_view, random_histories, score, pairs_at_once):
    view = train_view(*random_histories(0))
    whole = SequentialRules(window=4, max_neighbors=5).fit(view)
    monkeypatch.setattr(neighbors, "PAIRS_AT_ONCE", pairs_at_once)
    # Below the pairs of one item, so that its events come in pieces too.
    monkeypatch.setattr(sequential_rules, "PAIRS_AT_ONCE", pairs_at_once)
    in_blocks = SequentialRules(window=4, max_neighbors=5).fit(view)
    np.testing.assert_array_equal(score(in_blocks, [1, 2, 3]), score(whole, [1, 2, 3]))
    np.testing.assert_array_equal(in_blocks._table.toarray(), whole._table.toarray())


def test_only_the_largest_weights_are_kept(train_view, score):
    # 1 leads to 2 (weight 1), 3 (1/2) and 4 (1/3); its total stays that of all three.
    rules = SequentialRules(max_neighbors=2).fit(train_view([1, 2, 3, 4]))
    found = score(rules, [1])[0]
    np.testing.assert_allclose(found[1:3], [6 / 11, 3 / 11], rtol=1e-6)
    assert found[3] < 0


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"window": 0}, "`window` must be at least 1, got 0"),
        ({"max_history": 0}, "`max_history` must be at least 1, got 0"),
        ({"decay": 1.5}, "`decay` must be between 0 and 1, got 1.5"),
        ({"max_neighbors": 0}, "`max_neighbors` must be at least 1, got 0"),
    ],
)
def test_errors(parameters, message):
    with pytest.raises(ValueError, match=message):
        SequentialRules(**parameters)
