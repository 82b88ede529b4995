"""What every model promises. A new pair of files in hf_seqrec/models/ is tested without a line here."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, set_seed

import hf_seqrec
from hf_seqrec.data.histories import HistoryBatch
from hf_seqrec.data.objectives import collators_for

LENGTHS = (9, 1, 5)


def config_for(model_type, n_items=30, hidden_size=24, **fields):
    vocab_size = hf_seqrec.config_class(model_type).vocab_size_for(n_items)
    return AutoConfig.for_model(model_type, vocab_size=vocab_size, hidden_size=hidden_size, **fields)


@pytest.fixture(params=hf_seqrec.MODEL_TYPES)
def model(request):
    set_seed(0)
    return AutoModel.from_config(config_for(request.param, num_hidden_layers=2)).eval()


@pytest.fixture
def causal_model(model):
    if model.config.objective == "cloze":
        pytest.skip("looks both ways")
    return model


@pytest.fixture
def stateful_model(model):
    if model.config.stateless_because:
        pytest.skip(model.config.stateless_because)
    return model


def histories(lengths=LENGTHS, side="right", n_items=30, padded_to=None):
    generator = torch.Generator().manual_seed(3)
    longest = padded_to or max(lengths)
    input_ids = torch.zeros(len(lengths), longest, dtype=torch.long)
    for row, length in zip(input_ids, lengths, strict=True):
        items = torch.randint(1, n_items + 1, (length,), generator=generator)
        if side == "right":
            row[:length] = items
        else:
            row[longest - length :] = items
    return input_ids


def next_items(input_ids):
    labels = torch.full_like(input_ids, -100)
    labels[:, :-1] = input_ids[:, 1:]
    return labels.masked_fill((labels == 0) | (input_ids == 0), -100)


def test_shapes(model):
    input_ids = histories()
    output = model(input_ids)
    assert output.logits.shape == (3, 31)
    # BERT4Rec puts a mask behind each history.
    assert output.last_hidden_state.shape[1] in (9, 10)
    assert model(input_ids, labels=next_items(input_ids)).last_hidden_state.shape == (3, 9, 24)
    assert output.loss is None
    assert output.cache is None
    assert torch.isneginf(output.logits[:, 0]).all()
    assert torch.isfinite(output.logits[:, 1:]).all()


def test_logits_at_every_position_only_when_asked(model):
    input_ids = histories()
    labels = next_items(input_ids)
    assert model(input_ids, labels=labels).logits is None
    output = model(input_ids, labels=labels, output_logits=True)
    assert output.logits.shape == (3, 9, 31)
    expected = torch.nn.functional.cross_entropy(output.logits[labels != -100], labels[labels != -100])
    torch.testing.assert_close(output.loss, expected)


@pytest.mark.parametrize("num_hidden_layers", [1, 2])
def test_the_last_states_alone_are_those_of_all(model, num_hidden_layers):
    """Scores, loss and gradients of the item after each history, with what nobody asks for left out and without."""
    set_seed(1)
    model = AutoModel.from_config(config_for(model.config.model_type, num_hidden_layers=num_hidden_layers)).eval()
    input_ids, targets = histories(side="left", padded_to=12), torch.tensor([4, 11, 30])
    whole = model(input_ids)
    losses = {"whole": torch.nn.functional.cross_entropy(whole.logits, targets)}
    last = model(input_ids, labels=targets)
    assert last.last_hidden_state.shape == (3, 1, 24)
    assert last.logits is None
    losses["last"] = last.loss
    torch.testing.assert_close(losses["last"], losses["whole"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model(input_ids, only_last=True).logits, whole.logits, rtol=1e-5, atol=1e-6)
    at_each = model(input_ids, only_last=True, output_logits=True)
    torch.testing.assert_close(at_each.logits[:, 0], whole.logits, rtol=1e-5, atol=1e-6)
    recorded = model(input_ids, only_last=True, output_hidden_states=True)
    torch.testing.assert_close(recorded.logits, whole.logits, rtol=1e-5, atol=1e-6)
    assert recorded.hidden_states[0].shape[1] >= 9

    gradients = {}
    for name, loss in losses.items():
        model.zero_grad()
        loss.backward()
        gradients[name] = {key: parameter.grad.clone() for key, parameter in model.named_parameters()}
    for key, gradient in gradients["whole"].items():
        torch.testing.assert_close(gradients["last"][key], gradient, rtol=1e-4, atol=1e-6, msg=key)


def test_the_last_states_alone_go_on_from_a_state(stateful_model):
    input_ids, later = histories(), histories(lengths=(2, 4, 3))
    expected = stateful_model(input_ids, use_cache=True)
    cache = stateful_model(input_ids, use_cache=True, only_last=True).cache
    for ids in (later, later[:, :1]):
        whole = stateful_model(ids, cache=expected.cache)
        last = stateful_model(ids, cache=cache, only_last=True)
        torch.testing.assert_close(last.logits, whole.logits, rtol=1e-4, atol=1e-5)


def test_hidden_states_on_request(model):
    input_ids = histories()
    hidden_states = model(input_ids, labels=next_items(input_ids), output_hidden_states=True).hidden_states
    assert len(hidden_states) >= model.config.num_hidden_layers
    # Not the width: a GRU's is its own.
    assert all(states.shape[:2] == (3, 9) for states in hidden_states)


def test_padding_changes_nothing(model):
    expected = model(histories()).logits
    for side in ("right", "left"):
        torch.testing.assert_close(model(histories(side=side)).logits, expected, rtol=1e-5, atol=1e-6)
        wider = histories(side=side, padded_to=14)
        torch.testing.assert_close(model(wider).logits, expected, rtol=1e-5, atol=1e-6)
        # What stands at masked positions does not count.
        mask = (wider != 0).long()
        junk = torch.where(mask == 1, wider, 17)
        torch.testing.assert_close(model(junk, attention_mask=mask).logits, expected, rtol=1e-5, atol=1e-6)


def test_padding_changes_no_loss(model):
    right, left = histories(), histories(side="left", padded_to=12)
    losses = [model(input_ids, labels=next_items(input_ids)).loss for input_ids in (right, left)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-5, atol=1e-6)


def test_states_come_back_in_the_callers_layout(model):
    right, left = histories(), histories(side="left")
    states = [
        model(input_ids, labels=next_items(input_ids)).last_hidden_state[input_ids != 0] for input_ids in (right, left)
    ]
    torch.testing.assert_close(states[0], states[1], rtol=1e-5, atol=1e-6)


def test_a_batch_of_one_equals_its_row_in_a_batch(model):
    batch = model(histories()).logits
    for row, (input_ids, length) in enumerate(zip(histories(), LENGTHS, strict=True)):
        torch.testing.assert_close(model(input_ids[None, :length]).logits[0], batch[row], rtol=1e-5, atol=1e-6)


def test_the_future_changes_nothing(causal_model):
    input_ids = histories(lengths=(9, 9))
    changed = input_ids.clone()
    changed[:, 5] = changed[:, 5] % 30 + 1
    before, after = (causal_model(ids).last_hidden_state for ids in (input_ids, changed))
    torch.testing.assert_close(before[:, :5], after[:, :5], rtol=0, atol=1e-6)
    assert (before[:, 5:] - after[:, 5:]).abs().amax(dim=(0, 2)).min() > 1e-6


def test_step_by_step_equals_at_once(stateful_model):
    input_ids = histories(lengths=(9, 9))
    expected = stateful_model(input_ids, output_logits=True).logits
    cache, logits = None, []
    for position in range(input_ids.shape[1]):
        output = stateful_model(input_ids[:, position : position + 1], cache=cache, use_cache=True)
        cache = output.cache
        logits.append(output.logits)
    torch.testing.assert_close(torch.stack(logits, dim=1), expected, rtol=1e-4, atol=1e-5)


def test_state_of_a_padded_batch_goes_on(stateful_model):
    # Rows of different lengths, fed in two parts cut anywhere: each row's state stops at its own last item.
    input_ids, lengths = histories(), torch.tensor(LENGTHS)
    later = histories(lengths=(2, 4, 3))
    cache = stateful_model(input_ids, use_cache=True).cache
    continued = stateful_model(later, cache=cache).logits
    for row in range(3):
        whole = torch.cat([input_ids[row, : lengths[row]], later[row][later[row] > 0]])
        torch.testing.assert_close(stateful_model(whole[None]).logits[0], continued[row], rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_parameter(model):
    model.train()
    input_ids = histories(lengths=(9, 7, 8))
    model(input_ids, labels=next_items(input_ids)).loss.backward()
    without = [
        name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert without == []
    assert not model.item_embeddings.weight.grad[0].any()


def test_bfloat16_autocast(model):
    input_ids = histories()
    labels = next_items(input_ids)
    expected = model(input_ids, labels=labels).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(input_ids, labels=labels)
    output.loss.backward()
    torch.testing.assert_close(output.loss, expected, rtol=3e-2, atol=0)


def test_save_and_load(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    assert not list(tmp_path.glob("*.pt"))
    loaded, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is type(model)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    assert torch.equal(loaded(histories()).logits, model(histories()).logits)
    model_type = model.config.model_type
    assert loaded.config.auto_map == {
        "AutoConfig": f"configuration_{model_type}.{type(model.config).__name__}",
        "AutoModel": f"modeling_{model_type}.{type(model).__name__}",
    }


def test_a_seed_fixes_weights_and_dropout(model):
    def train_loss():
        set_seed(7)
        again = AutoModel.from_config(model.config).train()
        input_ids = histories()
        return again(input_ids, labels=next_items(input_ids)).loss

    assert torch.equal(train_loss(), train_loss())


def test_padding_row_stays_zero_in_training(model):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    input_ids = histories()
    for _ in range(3):
        optimizer.zero_grad()
        model(input_ids, labels=next_items(input_ids)).loss.backward()
        optimizer.step()
    assert not model.item_embeddings.weight[0].any()


@pytest.mark.parametrize(("n_items", "hidden_size"), [(1, 8), (100, 40)])
def test_odd_sizes(model, n_items, hidden_size):
    other = AutoModel.from_config(config_for(model.config.model_type, n_items, hidden_size)).eval()
    assert other.config.n_items == n_items
    input_ids = histories(n_items=n_items)
    assert other(input_ids).logits.shape == (3, n_items + 1)
    if n_items == 1:
        rows, _ = other.recommend(input_ids, top_k=1, exclude_seen=False)
        assert rows.tolist() == [[1], [1], [1]]


def test_overfits_a_few_histories(model):
    model.train()
    for dropout in (module for module in model.modules() if isinstance(module, torch.nn.Dropout)):
        dropout.p = 0.0
    input_ids = torch.tensor([[3, 9, 4, 12, 7], [5, 1, 8, 2, 30], [20, 21, 22, 23, 24]])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        loss = model(input_ids, labels=next_items(input_ids)).loss
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_gradient_checkpointing_gives_the_same_gradients(model):
    input_ids = histories()

    def gradients():
        model.zero_grad()
        set_seed(0)
        model(input_ids, labels=next_items(input_ids)).loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    model.train()
    expected = gradients()
    # Before transformers 5.23 it had another name, which 6 takes away.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()
    for gradient, expected_gradient in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(gradient, expected_gradient)


def test_asking_for_state_where_there_is_none(model):
    if model.config.stateless_because is None:
        pytest.skip("carries state")
    with pytest.raises(ValueError, match=r"`use_cache=True`.*encode the whole history"):
        model(histories(), use_cache=True)


def test_ranks_agree_with_the_scores_of_the_next_item(model):
    """The way of the trainer, through the collator of the model's objective, against plain scores."""
    config, input_ids = model.config, histories()
    items = input_ids[input_ids > 0].to(torch.int32).numpy()
    stops = np.cumsum(LENGTHS)
    targets = np.array([7, 8, 9])
    batch = HistoryBatch(items, stops - LENGTHS, stops, targets, np.arange(3))
    inputs = collators_for(config, max_length=12).ranking([batch])
    targets, seen_items = inputs.pop("targets"), inputs.pop("seen_items")
    output = model(**inputs)
    logits = model(input_ids).logits
    log_probabilities = torch.log_softmax(logits, dim=1)
    torch.testing.assert_close(output.loss, -log_probabilities.gather(1, targets[:, None]).mean())
    ranks, ranks_with_seen = model.rank_targets(output.last_hidden_state[:, 0], targets, seen_items)
    assert torch.equal(ranks_with_seen, (logits > logits.gather(1, targets[:, None])).sum(dim=1))
    unseen = logits.scatter(1, input_ids, -torch.inf)
    assert torch.equal(ranks, (unseen > logits.gather(1, targets[:, None])).sum(dim=1))


@pytest.mark.slow
def test_compiles(model):
    """Scores and losses alike; the graph breaks where a loss picks the labelled positions, which no shape tells."""
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager")
    input_ids = histories(lengths=(9, 6, 5))
    torch.testing.assert_close(compiled(input_ids).logits, model(input_ids).logits, rtol=1e-5, atol=1e-6)
    gradients = []
    for forward in (model, compiled):
        model.zero_grad()
        forward(input_ids, labels=next_items(input_ids)).loss.backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_learns_from_batches_of_its_objective(model):
    config, input_ids = model.config, histories(lengths=(9, 3, 5))
    items = input_ids[input_ids > 0].to(torch.int32).numpy()
    stops = np.cumsum((9, 3, 5))
    batch = HistoryBatch(items, stops - (9, 3, 5), stops, None, np.arange(3))
    loss = model(**collators_for(config, max_length=12).training([batch])).loss
    loss.backward()
    assert 0 < loss.item() < 2 * np.log(30)
