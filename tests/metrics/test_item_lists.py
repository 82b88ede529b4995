import numpy as np
import pytest

from hf_seqrec.metrics.item_lists import catalog_coverage, novelty

LISTS = [[1, 2, 3], [1, 4, 0]]
# -log2 of the shares: 1, 2, 3, 3 bits.
COUNTS = [0, 4, 2, 1, 1]


def test_coverage_by_hand():
    assert catalog_coverage(LISTS, n_items=8) == 4 / 8
    assert catalog_coverage(LISTS, n_items=8, k=1) == 1 / 8
    assert catalog_coverage(LISTS, n_items=8, k=2) == 3 / 8


def test_novelty_by_hand():
    assert novelty(LISTS, COUNTS) == pytest.approx(((1 + 2 + 3) / 3 + (1 + 3) / 2) / 2)
    assert novelty(LISTS, COUNTS, k=1) == 1.0


def test_an_item_nobody_had_counts_as_if_one_did():
    assert novelty([[2]], [0, 8, 0]) == 3.0


def test_recommending_what_is_popular_is_not_novel():
    generator = np.random.default_rng(0)
    counts = np.concatenate([[0], 1000 / np.arange(1, 101)])
    popular, any_item = np.tile(np.arange(1, 11), (50, 1)), generator.integers(1, 101, size=(50, 10))
    assert novelty(popular, counts) < novelty(any_item, counts)
    assert catalog_coverage(popular, 100) < catalog_coverage(any_item, 100)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: catalog_coverage([[1, 2]], 2, k=3), "between 1 and the 2 items of each list, got 3"),
        (lambda: catalog_coverage([[1, 3]], 2), "rows of the catalog, 0 to 2, got 3"),
        (lambda: catalog_coverage([], 2), "a list of rows for each user"),
        (lambda: novelty([[1], [0]], COUNTS), "row 1 has none"),
        (lambda: novelty([[1]], [0, 0]), "not all 0"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
