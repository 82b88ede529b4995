import numpy as np
import pytest
import torch

from hf_seqrec.metrics.ranking import ranks_from_scores
from hf_seqrec.models import item_scores as retrieval
from hf_seqrec.models.item_scores import candidate_ranks, score_items, target_ranks, top_k_items

# Scores are the embeddings themselves: one hidden channel of 1.
ONE = torch.ones(1, 1)


@pytest.fixture(params=[1, 3, 2**25], ids=["one row a chunk", "three rows a chunk", "one chunk"])
def _chunks(request, monkeypatch):
    monkeypatch.setattr(retrieval, "_SCORES_AT_ONCE", request.param)


def column(*scores):
    return torch.tensor(scores, dtype=torch.float32)[:, None]


@pytest.mark.usefixtures("_chunks")
def test_top_k_is_sorted_and_never_padding():
    rows, scores = top_k_items(ONE, column(99, 1, 5, 3, 4), top_k=3)
    assert rows.tolist() == [[2, 4, 3]]
    assert scores.tolist() == [[5, 4, 3]]


@pytest.mark.usefixtures("_chunks")
def test_excluded_rows_do_not_win():
    rows, scores = top_k_items(ONE, column(99, 1, 5, 3, 4), top_k=4, excluded_rows=torch.tensor([[2, 4, 0]]))
    assert rows[0, :2].tolist() == [3, 1]
    assert torch.isneginf(scores[0, 2:]).all()


@pytest.mark.usefixtures("_chunks")
def test_ranks_by_hand():
    embeddings = column(99, 1, 5, 3, 4, 3)
    target, seen = torch.tensor([3]), torch.tensor([[2, 5, 2, 0]])
    # Row 3 scores 3: above it rows 2 and 4, and row 5 ties, which counts against it. Rows 2 and 5 were seen.
    ranks, ranks_with_seen = target_ranks(ONE, embeddings, target, seen)
    assert (ranks.tolist(), ranks_with_seen.tolist()) == ([1], [3])


@pytest.mark.usefixtures("_chunks")
def test_a_target_in_the_history_still_takes_part():
    ranks, ranks_with_seen = target_ranks(ONE, column(0, 2, 3, 1), torch.tensor([1]), torch.tensor([[1, 2]]))
    assert (ranks.tolist(), ranks_with_seen.tolist()) == ([0], [1])


@pytest.mark.usefixtures("_chunks")
def test_a_constant_scorer_ranks_last():
    ranks, _ = target_ranks(ONE, torch.ones(6, 1), torch.tensor([4]), torch.zeros(1, 1, dtype=torch.long))
    assert ranks.tolist() == [4]


@pytest.mark.usefixtures("_chunks")
def test_agrees_with_the_metrics_package_on_random_scores():
    generator = torch.Generator().manual_seed(1)
    hidden_states, embeddings = torch.randn(9, 4, generator=generator), torch.randn(50, 4, generator=generator)
    targets = torch.randint(1, 50, (9,), generator=generator)
    seen = torch.randint(0, 50, (9, 12), generator=generator)
    ranks, ranks_with_seen = target_ranks(hidden_states, embeddings, targets, seen)
    scores = score_items(hidden_states, embeddings).numpy()
    np.testing.assert_array_equal(ranks, ranks_from_scores(scores, targets.numpy(), seen=seen.numpy()))
    np.testing.assert_array_equal(ranks_with_seen, ranks_from_scores(scores, targets.numpy()))


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_scores_that_are_no_numbers_raise(broken):
    states, targets = torch.tensor([[1.0], [broken], [broken]]), torch.tensor([1, 1, 1])
    message = "scores of 2 of the 3 users of this batch are NaN or infinite, user 1 first"
    with pytest.raises(ValueError, match=message):
        target_ranks(states, column(0, 1, 2), targets, torch.zeros(3, 1, dtype=torch.long))
    with pytest.raises(ValueError, match=message):
        candidate_ranks(states, column(0, 1, 2), targets, torch.full((3, 1), 2))


def test_ranks_among_candidates_by_hand():
    # Scores of rows 1 to 4: 3, 1, 2, 2.
    states, items = torch.ones(3, 1), column(0, 3, 1, 2, 2)
    negatives = torch.tensor([[2, 3], [1, 3], [1, 4]])
    assert candidate_ranks(states, items, torch.tensor([1, 2, 3]), negatives).tolist() == [0, 2, 2]
    bias = torch.tensor([0.0, -2.5, 0.0, 0.0, 0.0])
    assert candidate_ranks(states, items, torch.tensor([1, 2, 3]), negatives, bias).tolist() == [2, 1, 1]


def test_candidates_with_equal_embeddings_tie():
    generator = torch.Generator().manual_seed(0)
    states, items = torch.randn(7, 67, generator=generator), torch.randn(1, 67, generator=generator).repeat(102, 1)
    negatives = torch.arange(2, 102).repeat(7, 1)
    assert candidate_ranks(states, items, torch.ones(7, dtype=torch.long), negatives).tolist() == [100] * 7
