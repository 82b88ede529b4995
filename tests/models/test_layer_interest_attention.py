"""Attention to interests pooled from prefixes: against its definition, across calls, and where numbers get large."""

import pytest
import torch
from transformers import set_seed

from hf_seqrec import MLSA4RecConfig
from hf_seqrec.models.history_cache import HistoryCache
from hf_seqrec.models.history_context import HistoryContext
from hf_seqrec.models.layer_interest_attention import InterestAttention, ReferenceInterestAttention
from tests.models.by_the_book import interest_attention_by_the_book

CONFIG = MLSA4RecConfig(hidden_size=8, num_interests=3, num_attention_heads=2, hidden_dropout_prob=0.0)


def call(layer, inputs, mask=None, cache=None):
    mask = torch.ones(inputs.shape[:2], dtype=torch.long) if mask is None else mask.long()
    return layer(inputs, HistoryContext.from_mask(mask, cache))


def attention(cls=InterestAttention, scale=1.0):
    set_seed(0)
    layer = cls(CONFIG, layer_idx=0).eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=scale)
    torch.nn.init.ones_(layer.layer_norm.weight)
    return layer


# Within one chunk of 16 positions, one full chunk, and several with a rest.
@pytest.mark.parametrize("length", [1, 5, 16, 40])
@torch.no_grad()
def test_equals_the_equations(length):
    layer, inputs = attention().double(), torch.randn(2, length, 8, dtype=torch.float64)
    for row, outputs in zip(inputs, call(layer, inputs), strict=True):
        torch.testing.assert_close(outputs, interest_attention_by_the_book(layer, row), rtol=1e-9, atol=1e-9)


def test_gradients_equal_those_of_the_equations():
    layer, inputs = attention(scale=0.5).double(), torch.randn(1, 20, 8, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(20, 8, dtype=torch.float64)
    variables = [inputs, *layer.parameters()]
    found = torch.autograd.grad((call(layer, inputs)[0] * weights).sum(), variables)
    outputs = []
    # The book writes into its outputs; a position at a time, for autograd.
    for t in range(20):
        outputs.append(interest_attention_by_the_book(layer, inputs[0, : t + 1])[-1])
    expected = torch.autograd.grad((torch.stack(outputs) * weights).sum(), variables)
    for gradient, expected_gradient in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, expected_gradient, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("cuts", [(1, 2, 3), (15, 16, 17), (7, 33)])
@torch.no_grad()
def test_state_goes_on_from_wherever_it_was_cut(cuts):
    layer, inputs = attention(), torch.randn(2, 40, 8)
    cache, parts = HistoryCache(), []
    for part in inputs.tensor_split(cuts, dim=1):
        parts.append(call(layer, part, torch.ones(part.shape[:2]), cache))
    torch.testing.assert_close(torch.cat(parts, dim=1), call(layer, inputs), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_rows_of_different_lengths_and_none():
    layer, inputs = attention(), torch.randn(3, 20, 8)
    lengths = torch.tensor([20, 3, 0])
    mask = (torch.arange(20) < lengths[:, None]).long()
    cache = HistoryCache()
    call(layer, torch.where(mask[:, :, None] == 1, inputs, 1e4), mask, cache)
    later = torch.randn(3, 2, 8)
    continued = call(layer, later, torch.ones(3, 2), cache)
    for row, length in enumerate(lengths):
        whole = torch.cat([inputs[row, :length], later[row]])
        torch.testing.assert_close(continued[row], call(layer, whole[None])[0, length:], rtol=1e-4, atol=1e-5)


def test_large_scores_neither_overflow_nor_lose_the_past():
    # Scores of interests in the thousands: their exponentials have no number in any precision.
    layer = attention()
    inputs = (100 * torch.randn(1, 50, 8)).requires_grad_()
    outputs = call(layer, inputs)
    outputs.square().sum().backward()
    assert torch.isfinite(outputs).all()
    assert torch.isfinite(inputs.grad).all()
    with torch.no_grad():
        expected = interest_attention_by_the_book(layer.double(), inputs[0].double())
    torch.testing.assert_close(outputs[0].double(), expected, rtol=1e-3, atol=1e-3)


@torch.no_grad()
def test_an_item_of_little_weight_is_kept_until_it_counts():
    # A first item that outweighs all others, then 100 alike: what is seen stays what it was.
    layer = attention(scale=3.0)
    cache = HistoryCache()
    first, second = torch.randn(2, 1, 1, 8)
    call(layer, first, torch.ones(1, 1), cache)
    for _ in range(100):
        one_by_one = call(layer, second, torch.ones(1, 1), cache)
    at_once = call(layer, torch.cat([first, second.expand(1, 100, 8)], dim=1))[:, -1:]
    torch.testing.assert_close(one_by_one, at_once, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_bias_of_the_keys_would_change_nothing():
    layer = attention()
    inputs = torch.randn(1, 30, 8)
    expected = call(layer, inputs)
    layer.k_proj.bias = torch.nn.Parameter(torch.randn(8))
    torch.testing.assert_close(call(layer, inputs), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_bfloat16_keeps_its_state_in_float32():
    layer, inputs = attention(scale=0.5), torch.randn(2, 40, 8)
    cache = HistoryCache()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = call(layer, inputs, torch.ones(2, 40), cache)
    assert cache.get(0, "interests").dtype == torch.float32
    torch.testing.assert_close(outputs.float(), call(layer, inputs), rtol=0.1, atol=0.1)


@torch.no_grad()
def test_the_reference_lets_the_softmax_run_over_the_positions():
    layer, inputs = attention(ReferenceInterestAttention), torch.randn(1, 6, 8)
    query, key, value = (project(inputs[0]) for project in (layer.q_proj, layer.k_proj, layer.v_proj))
    keys = torch.softmax(key @ layer.key_interests, dim=0).T @ key
    values = torch.softmax(value @ layer.value_interests, dim=0).T @ value
    mixed = torch.zeros(6, 8)
    for part in (slice(0, 4), slice(4, 8)):
        weights = torch.softmax(query[:, part] @ keys[:, part].T / 2, dim=0)
        mixed[:, part] = weights @ values[:, part]
    torch.testing.assert_close(call(layer, inputs)[0], layer.layer_norm(mixed + inputs[0]), rtol=1e-5, atol=1e-5)
