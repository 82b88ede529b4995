"""Recommending and the checks at the door, on Mamba4Rec: they belong to the base class."""

import pytest
import torch
from transformers import set_seed
from transformers.cache_utils import DynamicCache

from hf_seqrec import Mamba4Rec, Mamba4RecConfig

HISTORY = torch.tensor([[4, 9, 2, 7, 0, 0], [1, 2, 3, 4, 5, 6]])


@pytest.fixture
def model():
    set_seed(0)
    return Mamba4Rec(Mamba4RecConfig(vocab_size=21, hidden_size=16)).eval()


def test_recommends_the_best_unseen_items(model):
    rows, scores = model.recommend(HISTORY, top_k=5)
    logits = model(HISTORY).logits.scatter(1, HISTORY, -torch.inf)
    expected_scores, expected_rows = logits.topk(5)
    assert torch.equal(rows, expected_rows)
    torch.testing.assert_close(scores, expected_scores)


def test_recommends_seen_items_when_asked(model):
    rows, _ = model.recommend(HISTORY, top_k=20, exclude_seen=False)
    assert sorted(rows[0].tolist()) == list(range(1, 21))


def test_recommends_only_candidates(model):
    candidates = torch.tensor([11, 4, 15, 6, 11])
    rows, scores = model.recommend(HISTORY, top_k=2, candidate_rows=candidates)
    logits = model(HISTORY).logits
    for row, score, user in zip(rows, scores, range(2), strict=True):
        allowed = [item for item in (4, 6, 11, 15) if item not in HISTORY[user]]
        best = sorted(allowed, key=lambda item: -logits[user, item].item())[:2]
        assert row.tolist() == best
        torch.testing.assert_close(score, logits[user, best])


def test_recommends_from_a_state(model):
    whole = model.recommend(HISTORY[1:], top_k=3, exclude_seen=False)
    cache = model(HISTORY[1:, :4], use_cache=True).cache
    rows, scores = model.recommend(HISTORY[1:, 4:], top_k=3, exclude_seen=False, cache=cache)
    assert torch.equal(rows, whole[0])
    torch.testing.assert_close(scores, whole[1], rtol=1e-4, atol=1e-5)


def test_the_cache_goes_by_its_earlier_name_too(model):
    expected = model.recommend(HISTORY[1:], top_k=3, exclude_seen=False)
    output = model(HISTORY[1:, :4], use_cache=True)
    assert output.cache_params is output.cache
    output = model(HISTORY[1:, 4:5], cache_params=output.cache_params)
    rows, scores = model.recommend(HISTORY[1:, 5:], top_k=3, exclude_seen=False, cache_params=output.cache)
    assert torch.equal(rows, expected[0])
    torch.testing.assert_close(scores, expected[1], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="Pass `cache` only"):
        model(HISTORY[1:, 4:], cache=output.cache, cache_params=output.cache)


def test_refuses_a_cache_of_transformers(model):
    with pytest.raises(TypeError, match="`cache` must be a `HistoryCache`, got DynamicCache"):
        model(HISTORY, cache=DynamicCache(config=model.config))


def test_recommending_leaves_the_mode_alone_and_uses_no_dropout(model):
    expected = model.recommend(HISTORY, top_k=3)
    model.train()
    assert all(torch.equal(a, b) for a, b in zip(model.recommend(HISTORY, top_k=3), expected, strict=True))
    assert model.training


def test_keeps_the_most_recent_items_that_a_model_has_positions_for(model):
    model.config.max_position_embeddings = 3
    rows, _ = model.recommend(HISTORY, top_k=4)
    # Encoded: the last three items. Excluded: all of the history.
    recent = torch.tensor([[9, 2, 7], [4, 5, 6]])
    logits = model(recent).logits.scatter(1, HISTORY, -torch.inf)
    assert torch.equal(rows, logits.topk(4).indices)
    with pytest.raises(ValueError, match=r"hold 6 positions, but this model has 3"):
        model(HISTORY)


@pytest.mark.parametrize("row", [21, -1])
def test_rows_out_of_the_catalog(model, row):
    with pytest.raises(ValueError, match=rf"catalog rows in 0\.\.20, got .*{row}"):
        model(torch.tensor([[3, row]]))
    with pytest.raises(ValueError, match=r"`candidate_rows` must be catalog rows"):
        model.recommend(HISTORY, candidate_rows=torch.tensor([row]))


def test_empty_histories(model):
    with pytest.raises(ValueError, match="history of user 1 of the batch is empty"):
        model(torch.tensor([[3, 4], [0, 0]]))
    with pytest.raises(ValueError, match="history of user 0 of the batch is empty"):
        model.recommend(torch.tensor([[0, 0]]))
    with pytest.raises(ValueError, match="`input_ids` is empty"):
        model.recommend(torch.zeros(1, 0, dtype=torch.long))


def test_too_few_items_left(model):
    with pytest.raises(ValueError, match=r"at most the 14 items left to recommend to user 1, got 15"):
        model.recommend(HISTORY, top_k=15)
    with pytest.raises(ValueError, match=r"between 1 and the 20 items to choose from, got 21"):
        model.recommend(HISTORY, top_k=21, exclude_seen=False)


def test_no_label(model):
    with pytest.raises(ValueError, match="every label is -100"):
        model(HISTORY, labels=torch.full_like(HISTORY, -100))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab_size", 1),
        ("hidden_size", 0),
        ("num_hidden_layers", 0),
        ("hidden_dropout_prob", 1.0),
        ("state_size", 0),
        ("time_step_min", 0.5),
        ("pad_token_id", 3),
    ],
)
def test_configurations_that_cannot_work(field, value):
    with pytest.raises(ValueError, match=f"`{field}`"):
        Mamba4RecConfig(**{field: value})
