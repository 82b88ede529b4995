import functools

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from hf_seqrec import BERT4Rec, BERT4RecConfig, RecMamba, RecMambaConfig
from hf_seqrec.data.leave_one_out import leave_one_out
from hf_seqrec.models.loss_full_softmax import full_softmax_loss
from hf_seqrec.training.run_folder import checkpoint_to_resume
from hf_seqrec.training.sharded_embedding import shard_item_embedding
from hf_seqrec.training.trainer import SeqRecTrainer
from hf_seqrec.training.training_args import SeqRecTrainingArguments
from tests.helpers import small_model, walks
from tests.ranks import on_ranks

# Rank 0 has 3 users and rank 1 has 2, padded on the right.
HISTORIES = torch.tensor([[1, 5, 2, 11, 3], [4, 4, 9, 0, 0], [12, 1, 0, 0, 0], [7, 8, 9, 10, 11], [6, 2, 3, 0, 0]])
TARGETS = torch.tensor([4, 12, 2, 12, 1])
USERS = [slice(0, 3), slice(3, 5)]
LABELS = torch.where(HISTORIES == 0, -100, HISTORIES.roll(-1, 1).masked_fill(HISTORIES == 0, 1).clamp(min=1))


def loss_and_gradients(model, users):
    """Backpropagate the share of some users in the mean over all positions of all users."""
    labels = LABELS[users]
    loss = model(HISTORIES[users], labels=labels, num_items_in_batch=(LABELS != -100).sum()).loss
    loss.backward()
    return loss.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


def on_this_rank(rank, n_ranks, make):
    model = make()
    shards = shard_item_embedding(model)
    model.eval()
    users = USERS[rank] if n_ranks == 2 else slice(2 * rank, 2 * rank + 2 - rank // 2)
    loss, gradients = loss_and_gradients(model, users)
    batch = HISTORIES[users]
    with torch.no_grad():
        states = model(batch, labels=TARGETS[users]).last_hidden_state[:, 0]
        ranks = model.rank_targets(states, TARGETS[users], batch)
    recommended = model.recommend(batch, top_k=6), model.recommend(batch, top_k=11, exclude_seen=False)
    return {
        "rows": (shards.first_row, shards.end_row),
        "loss": loss,
        "gradients": gradients,
        "ranks": ranks,
        "recommended": recommended,
        "table": shards.whole_table(),
    }


def mamba4rec():
    return small_model(13, initializer_range=0.5)


def recmamba():
    torch.manual_seed(0)
    return RecMamba(RecMambaConfig(vocab_size=13, hidden_size=16, state_size=4, initializer_range=0.5))


@pytest.mark.parametrize("n_ranks", [2, 3])
@pytest.mark.parametrize("make", [mamba4rec, recmamba])
def test_ranks_compute_what_one_process_does(make, n_ranks):
    whole = make().eval()
    loss, gradients = loss_and_gradients(whole, slice(None))
    answers = on_ranks(on_this_rank, n_ranks, make, n=n_ranks)
    assert sum(answer["loss"] for answer in answers) == pytest.approx(loss.item(), abs=1e-6)
    assert answers[0]["rows"] == (0, 13 // n_ranks)
    # Ranks get the mean over ranks of all losses' gradients.
    of_table = torch.cat([answer["gradients"].pop("item_embeddings.weight") for answer in answers])
    torch.testing.assert_close(n_ranks * of_table, gradients.pop("item_embeddings.weight"), rtol=1e-5, atol=1e-6)
    assert not of_table[0].any()
    for name, gradient in gradients.items():
        of_all = sum(answer["gradients"][name] for answer in answers)
        torch.testing.assert_close(of_all, gradient, rtol=1e-5, atol=1e-6, msg=name)

    with torch.no_grad():
        states = whole(HISTORIES, labels=TARGETS).last_hidden_state[:, 0]
        ranks = whole.rank_targets(states, TARGETS, HISTORIES)
    for i in (0, 1):
        assert torch.equal(torch.cat([answer["ranks"][i] for answer in answers]), ranks[i])
    expected = whole.recommend(HISTORIES, top_k=6), whole.recommend(HISTORIES, top_k=11, exclude_seen=False)
    for i, (rows, scores) in enumerate(expected):
        assert torch.equal(torch.cat([answer["recommended"][i][0] for answer in answers]), rows)
        of_all = torch.cat([answer["recommended"][i][1] for answer in answers])
        torch.testing.assert_close(of_all, scores, rtol=1e-5, atol=1e-5)
    assert answers[1]["table"] is None
    assert torch.equal(answers[0]["table"], whole.item_embeddings.weight)


def loss_of_large_scores(rank):
    torch.manual_seed(0)
    model = small_model(50)
    with torch.no_grad():
        model.item_embeddings.weight[1:] = 40 * torch.randn(49, 16)
    table = model.item_embeddings.weight.detach().clone()
    shards = shard_item_embedding(model)
    hidden, labels = torch.randn(7, 16), torch.tensor([1, 49, 24, 25, 3, 3, 9])
    return shards.full_softmax_loss(hidden, labels).item(), full_softmax_loss(hidden, table, labels).item()


def test_scores_too_large_for_an_exponential():
    for found, expected in on_ranks(loss_of_large_scores):
        assert expected > 100
        assert found == pytest.approx(expected, rel=1e-5)


def trainer_for(folder, **arguments):
    sequences = walks(n_users=24)
    splits = leave_one_out(sequences)
    arguments = {
        "max_steps": 6,
        "per_device_train_batch_size": 4,
        "learning_rate": 1e-2,
        # Below what it is, so that it is clipped.
        "max_grad_norm": 0.1,
        "max_length": 10,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "steps",
        "save_steps": 2,
        "save_total_limit": 10,
        "disable_tqdm": True,
        "use_cpu": True,
    } | arguments
    return SeqRecTrainer(
        small_model(13, hidden_dropout_prob=0.0),
        SeqRecTrainingArguments(str(folder), **arguments),
        train_dataset=splits.train,
        eval_dataset=splits.validation,
        catalog=sequences.catalog,
    )


def trained_and_saved(rank, folder, resume_from=None, **arguments):
    trainer = trainer_for(folder, **arguments)
    trainer.train(resume_from)
    metrics = trainer.evaluate()
    trainer.save_model()
    return {name: value for name, value in metrics.items() if "@" in name}


def test_trains_as_two_processes_with_a_whole_table_do(tmp_path):
    whole = on_ranks(trained_and_saved, tmp_path / "whole")
    sharded = on_ranks(functools.partial(trained_and_saved, shard_embeddings=True), tmp_path / "sharded")
    assert sharded[0] == sharded[1] == pytest.approx(whole[0], abs=1e-6)
    # An ordinary checkpoint, of the best step.
    models = [AutoModel.from_pretrained(tmp_path / name) for name in ("whole", "sharded")]
    before = small_model(13).item_embeddings.weight
    assert (models[0].item_embeddings.weight - before).abs().max() > 1e-2
    for name, tensor in models[0].state_dict().items():
        torch.testing.assert_close(models[1].state_dict()[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_resumes_exactly(tmp_path):
    train = functools.partial(trained_and_saved, shard_embeddings=True)
    whole = on_ranks(train, tmp_path)
    weights = load_file(tmp_path / "checkpoint-6/model.safetensors")
    checkpoint = checkpoint_to_resume(str(tmp_path), tmp_path / "checkpoint-2")
    assert on_ranks(functools.partial(train, resume_from=checkpoint), tmp_path) == whole
    for name, tensor in load_file(tmp_path / "checkpoint-6/model.safetensors").items():
        assert torch.equal(tensor, weights[name]), name
    # Not with other shards than those that it has the optimizer's state of.
    for answer in on_ranks(functools.partial(train, resume_from=checkpoint), tmp_path, n=3):
        with pytest.raises(ValueError, match=r"shared out among 2 processes \(2 files\), but here it is among 3"):
            raise answer
    with pytest.raises(ValueError, match=r"shared out among 2 processes \(2 files\), but here it is whole"):
        trainer_for(tmp_path).train(checkpoint)


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        ({"loss": "bce"}, "--loss bce"),
        ({"label_smoothing_factor": 0.1}, "--label_smoothing_factor"),
        ({"eval_protocol": "sampled"}, "--eval_protocol sampled"),
    ],
)
def test_refuses_other_losses_and_protocols(tmp_path, arguments, option):
    with pytest.raises(ValueError, match=f"`shard_embeddings` must come without {option}"):
        SeqRecTrainingArguments(str(tmp_path), shard_embeddings=True, use_cpu=True, **arguments)


def refused(rank, make):
    try:
        shard_item_embedding(make())
    except ValueError as error:
        return str(error)


def bert4rec():
    return BERT4Rec(BERT4RecConfig(vocab_size=14, hidden_size=16))


def test_refuses_what_it_cannot_share_out():
    with pytest.raises(ValueError, match="`shard_embeddings` must come with several processes, found one"):
        shard_item_embedding(mamba4rec())
    assert all("alone, which BERT4Rec does not" in message for message in on_ranks(refused, bert4rec))
    assert all("a row for each of the 3 processes, got 2 rows" in m for m in on_ranks(refused, two_rows, n=3))


def two_rows():
    return small_model(2)
