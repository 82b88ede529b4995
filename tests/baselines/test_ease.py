import numpy as np
import pytest

from hf_seqrec.baselines import ease
from hf_seqrec.baselines.ease import EASE


def by_definition(histories, n_items, l2):
    """Weights `(n_items, n_items)` as one ridge regression for each item, without itself."""
    x = np.array([[float(item in history) for item in range(1, n_items + 1)] for history in histories])
    weights = np.zeros((n_items, n_items))
    for item in range(n_items):
        others = np.delete(np.arange(n_items), item)
        gram = x[:, others].T @ x[:, others] + l2 * np.eye(n_items - 1)
        weights[others, item] = np.linalg.solve(gram, x[:, others].T @ x[:, item])
    return weights


def test_by_hand(train_view, score):
    # Item 1 has two users and item 2 one of them. X^T X + I = [[3, 1], [1, 2]], its inverse [[2, -1], [-1, 3]] / 5.
    model = EASE(l2=1).fit(train_view([1, 2, 1], [1]))
    # 1 -> 2: (1/5) / (3/5); 2 -> 1: (1/5) / (2/5).
    np.testing.assert_allclose(score(model, [1], [2]), [[0, 1 / 3], [1 / 2, 0]], rtol=1e-6)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("rows_at_once", [1, 5, 1024])
def test_against_the_definition(monkeypatch, train_view, random_histories, score, seed, rows_at_once):
    monkeypatch.setattr(ease, "_ROWS_AT_ONCE", rows_at_once)
    histories = random_histories(seed)
    generator = np.random.default_rng(seed)
    l2, decay, max_history = generator.uniform(0.5, 20), generator.uniform(0.1, 1), [None, 3][seed % 2]
    model = EASE(l2, max_history, decay).fit(train_view(*histories, n_items=12))
    weights = by_definition(histories, 12, l2)
    for history, found in zip(histories, score(model, *histories), strict=True):
        recent = history[::-1][:max_history]
        expected = sum(decay**age * weights[item - 1] for age, item in enumerate(recent))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_the_paper_knows_no_order(train_view, random_histories, score):
    model = EASE(l2=5, decay=1).fit(train_view(*random_histories(0)))
    np.testing.assert_allclose(score(model, [1, 2, 3]), score(model, [3, 1, 2]), rtol=1e-5)


def test_a_catalog_too_large_is_refused(train_view):
    view = train_view([1, 2], [2, 40_000])
    with pytest.raises(ValueError, match=r"40,000 items of this catalog need 6.0 GiB .* `max_items` is 30,000"):
        EASE().fit(view)
    with pytest.raises(ValueError, match="`max_items` is 3"):
        EASE(max_items=3).fit(train_view([1, 2, 3, 4]))
    EASE(max_items=4).fit(train_view([1, 2, 3, 4]))


def test_a_penalty_too_small_for_float32(train_view):
    # Every user has both items: X^T X has a row twice, and the penalty is lost in rounding.
    with pytest.raises(ValueError, match="`l2` must be large enough to invert"):
        EASE(l2=1e-9).fit(train_view(*[[1, 2]] * 50))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"l2": 0}, "`l2` must be above 0, got 0"),
        ({"max_history": 0}, "`max_history` must be at least 1, got 0"),
        ({"decay": 2}, "`decay` must be between 0 and 1, got 2"),
    ],
)
def test_errors(parameters, message):
    with pytest.raises(ValueError, match=message):
        EASE(**parameters)
