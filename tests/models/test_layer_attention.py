"""The attention layer against its definition, a position at a time, in each implementation and over states."""

import pytest
import torch
from transformers import set_seed
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from hf_seqrec.models.configuration_seqrec import SeqRecConfig
from hf_seqrec.models.history_cache import HistoryCache
from hf_seqrec.models.history_context import HistoryContext
from hf_seqrec.models.layer_attention import SelfAttention, bidirectional_view, causal_view

LENGTHS = torch.tensor([5, 2, 3])
MASK = (torch.arange(5) < LENGTHS[:, None]).long()


def make(is_causal, implementation="sdpa", **fields):
    set_seed(0)
    config = SeqRecConfig(hidden_size=12, **fields)
    config.num_attention_heads, config.attention_probs_dropout_prob = 3, 0.0
    config._attn_implementation = implementation
    layer = SelfAttention(config, layer_idx=0, is_causal=is_causal)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter)
    return config, layer.eval()


def context(config, is_causal, mask=MASK, cache=None):
    visible = causal_view(config, mask, cache).visible if is_causal else bidirectional_view(config, mask)
    return HistoryContext.from_mask(mask, cache)._replace(visible=visible)


def attention_by_the_book(layer, asking, answering, is_causal):
    """One history `(l, d)`."""
    output = torch.zeros_like(asking)
    for head in range(3):
        rows = slice(4 * head, 4 * head + 4)
        query = asking @ layer.q_proj.weight[rows].T + layer.q_proj.bias[rows]
        key = answering @ layer.k_proj.weight[rows].T
        value = answering @ layer.v_proj.weight[rows].T + layer.v_proj.bias[rows]
        for t in range(len(asking)):
            seen = t + 1 if is_causal else len(asking)
            weights = torch.softmax(key[:seen] @ query[t] / 4**0.5, dim=0)
            output[t, rows] = weights @ value[:seen]
    return output @ layer.out_proj.weight.T + layer.out_proj.bias


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("is_causal", [True, False])
def test_equals_the_definition(is_causal, implementation):
    config, layer = make(is_causal, implementation)
    asking, answering = torch.randn(2, 3, 5, 12)
    mixed, weights = layer(asking, context(config, is_causal), answering)
    for row, length in enumerate(LENGTHS):
        expected = attention_by_the_book(layer, asking[row, :length], answering[row, :length], is_causal)
        torch.testing.assert_close(mixed[row, :length], expected, rtol=1e-5, atol=1e-5)
    assert (weights is None) == (implementation == "sdpa")


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_goes_on_from_histories_of_different_lengths(implementation):
    config, layer = make(True, implementation, max_position_embeddings=10)
    states = torch.randn(3, 9, 12)
    calls = [(0, 5, LENGTHS), (5, 8, torch.tensor([1, 3, 2])), (8, 9, torch.tensor([1, 1, 1]))]
    cache = HistoryCache()
    kept, mixed, positions = ([[], [], []] for _ in range(3))
    for start, stop, lengths in calls:
        mask = (torch.arange(stop - start) < lengths[:, None]).long()
        view = causal_view(config, mask, cache)
        output, _ = layer(states[:, start:stop], context(config, True, mask, cache))
        for row, length in enumerate(lengths):
            kept[row].append(states[row, start : start + length])
            mixed[row].append(output[row, :length])
            positions[row] += view.positions.expand(3, -1)[row, :length].tolist()
    for row in range(3):
        whole = torch.cat(kept[row])
        assert positions[row] == list(range(len(whole)))
        expected = attention_by_the_book(layer, whole, whole, True)
        torch.testing.assert_close(torch.cat(mixed[row]), expected, rtol=1e-5, atol=1e-5)


def test_a_history_that_outgrows_the_positions():
    config, layer = make(True, max_position_embeddings=6)
    cache = HistoryCache()
    layer(torch.randn(3, 5, 12), context(config, True, cache=cache))
    with pytest.raises(ValueError, match=r"a history of 7 items, but this model has 6 positions.*most recent 6"):
        causal_view(config, torch.ones(3, 2), cache)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_empty_rows_leave_gradients_finite(implementation):
    config, layer = make(False, implementation)
    mask = torch.tensor([[1, 1], [0, 0]])
    states = torch.randn(2, 2, 12, requires_grad=True)
    mixed, _ = layer(states, context(config, False, mask))
    mixed[0].sum().backward()
    assert torch.isfinite(mixed).all()
    assert torch.isfinite(states.grad).all()


def test_flash_attention_gets_what_it_understands(monkeypatch):
    """Where flash attention is installed: its own padding mask, and no call whose mask it could not express."""
    asked = []

    def flash(module, query, key, value, attention_mask, **kwargs):
        asked.append(attention_mask)
        return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, None, **kwargs)

    config, layer = make(True, "flash_attention_2")
    monkeypatch.setitem(ALL_ATTENTION_FUNCTIONS._global_mapping, "flash_attention_2", flash)
    states = torch.randn(3, 5, 12)
    cache = HistoryCache()
    layer(states, context(config, True, cache=cache))
    assert asked == [None]
    layer(states, context(config, True, cache=cache))
    assert asked == [None]
    _, layer = make(False, "flash_attention_2")
    layer(states, context(config, False))
    assert asked[1] is MASK
