import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import Trainer, set_seed

from hf_seqrec import BERT4Rec, BERT4RecConfig
from hf_seqrec.training.embedding_optimizer import ItemTableOptimizer, RowwiseAdagrad, gradient_values
from hf_seqrec.training.run_folder import checkpoint_to_resume
from hf_seqrec.training.training_args import SeqRecTrainingArguments
from tests.helpers import sequences_of, small_model, walks
from tests.training.test_trainer import StopAt, trainer_for

QUIET = {"eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False}
ROWWISE = {
    "loss": "sampled_softmax",
    "num_negatives": 5,
    "embedding_optimizer": "rowwise_adagrad",
    "embedding_learning_rate": 0.3,
}


def dense_step(table, gradient, sums, lr, weight_decay, eps=1e-8):
    """Row-wise Adagrad written out over the whole table, row after row."""
    for row in range(len(table)):
        if not gradient[row].any():
            continue
        sums[row] += (gradient[row] ** 2).sum() / gradient[row].numel()
        table[row] = (1 - lr * weight_decay) * table[row] - lr * gradient[row] / (sums[row] ** 0.5 + eps)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("shape", [(11, 3), (11,)], ids=["a table", "a bias"])
def test_equals_the_formula_over_the_whole_table(shape, weight_decay):
    generator = torch.Generator().manual_seed(0)
    table = nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
    expected, sums = table.detach().clone(), torch.zeros(11, dtype=torch.float64)
    optimizer = RowwiseAdagrad([table], lr=0.5, weight_decay=weight_decay)
    for lr in (0.5, 0.5, 0.2):
        optimizer.param_groups[0]["lr"] = lr
        # Rows 0 and 7 never; some more than once.
        rows = torch.tensor([3, 5, 3, 10, 1, 3, 5])
        values = torch.randn((len(rows), *shape[1:]), generator=generator, dtype=torch.float64)
        table.grad = torch.sparse_coo_tensor(rows[None], values, shape, check_invariants=True)
        dense_step(expected, table.grad.to_dense(), sums, lr, weight_decay)
        optimizer.step()
        torch.testing.assert_close(table.detach(), expected)
        torch.testing.assert_close(optimizer.state[table]["sum"], sums)


def test_a_first_step_by_hand():
    # Row 1 is there twice: (1, 2) + (2, 2) = (3, 4), of mean square 12.5.
    table = nn.Parameter(torch.tensor([[1.0, 1.0], [1.0, 1.0]]))
    optimizer = RowwiseAdagrad([table], lr=0.1)
    table.grad = torch.sparse_coo_tensor([[1, 1]], [[1.0, 2.0], [2.0, 2.0]], (2, 2), check_invariants=True)
    optimizer.step()
    assert optimizer.state[table]["sum"].tolist() == [0.0, 12.5]
    torch.testing.assert_close(table.data, torch.tensor([[1.0, 1.0], [1 - 0.3 / 12.5**0.5, 1 - 0.4 / 12.5**0.5]]))


def test_refuses_dense_gradients_and_half_precision():
    table = nn.Parameter(torch.ones(4, 2))
    optimizer = RowwiseAdagrad([table])
    table.grad = torch.ones(4, 2)
    with pytest.raises(ValueError, match="takes sparse gradients"):
        optimizer.step()
    with pytest.raises(ValueError, match="float32"):
        RowwiseAdagrad([nn.Parameter(torch.ones(4, 2, dtype=torch.bfloat16))])
    with pytest.raises(ValueError, match="`lr` must be at least 0"):
        RowwiseAdagrad([table], lr=-1.0)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_the_rest_is_as_with_its_own_optimizer_alone(weight_decay):
    set_seed(0)
    models = [nn.ModuleDict({"table": nn.Embedding(9, 4, sparse=True), "rest": nn.Linear(4, 9)}) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    together = ItemTableOptimizer(
        [
            {"params": [models[0].table.weight, models[0].rest.weight], "weight_decay": weight_decay},
            {"params": [models[0].rest.bias], "weight_decay": 0.0},
        ],
        tables=[models[0].table.weight],
        lr=0.1,
        dense_class=torch.optim.AdamW,
        dense_options={"lr": 1e-2, "betas": (0.8, 0.9)},
    )
    alone = torch.optim.AdamW(
        [
            {"params": [models[1].rest.weight], "weight_decay": weight_decay},
            {"params": [models[1].rest.bias], "weight_decay": 0.0},
        ],
        lr=1e-2,
        betas=(0.8, 0.9),
    )
    table = RowwiseAdagrad([models[1].table.weight], lr=0.1, weight_decay=weight_decay)
    for step in range(5):
        rows = torch.tensor([1, 4, 4, 2 + step])
        for model in models:
            model.zero_grad()
            F.cross_entropy(model.rest(model.table(rows)), rows).backward()
        together.step()
        alone.step()
        table.step()
        for name, parameter in models[0].named_parameters():
            assert torch.equal(parameter, models[1].get_parameter(name)), (step, name)


def test_gradients_are_of_the_rows_of_the_batch():
    model = small_model(1000)
    model.config.item_loss = "sampled_softmax"
    model.use_sparse_item_gradients()
    negatives = torch.tensor([7, 8, 8, 900])
    labels = torch.tensor([[2, 3, 4]])
    model(
        torch.tensor([[1, 2, 3]]), labels=labels, negatives=negatives, negatives_log_q=torch.zeros(4)
    ).loss.backward()
    gradient = model.item_embeddings.weight.grad
    assert gradient.is_sparse
    assert gradient.coalesce().indices()[0].tolist() == [1, 2, 3, 4, 7, 8, 900]


def bert4rec():
    set_seed(0)
    config = BERT4RecConfig(
        vocab_size=BERT4RecConfig.vocab_size_for(12),
        hidden_size=16,
        num_hidden_layers=1,
        max_position_embeddings=10,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BERT4Rec(config)


@pytest.mark.parametrize(
    "make", [lambda: small_model(13, hidden_dropout_prob=0.0), bert4rec], ids=["mamba4rec", "bert4rec"]
)
@pytest.mark.parametrize("loss", ["sampled_softmax", "bce"])
def test_training_equals_the_formula_on_dense_gradients(tmp_path, make, loss):
    """The same steps by hand: dense gradients, torch's clipping and AdamW, the formula for the tables."""
    # Accumulated over two batches, clipped, with weight decay and a falling learning rate.
    arguments = QUIET | ROWWISE | {"loss": loss, "num_train_epochs": 2, "lr_scheduler_type": "linear"}
    arguments |= {"gradient_accumulation_steps": 2, "max_grad_norm": 0.5, "weight_decay": 0.1}
    trainer = trainer_for(tmp_path, walks(n_users=32), make(), **arguments)
    by_hand = make()
    by_hand.config.update(trainer.model.config.to_dict())
    steps = []

    collate = trainer.data_collator

    def remembering(examples):
        steps.append({name: value.clone() for name, value in collate(examples).items()})
        return collate(examples)

    trainer.data_collator = remembering
    trainer.train()

    names = {"item_embeddings.weight", "output_bias"}
    tables = {name: p for name, p in by_hand.named_parameters() if name in names}
    sums = {name: torch.zeros(len(table)) for name, table in tables.items()}
    decayed = trainer.get_decay_parameter_names(by_hand)
    rest = [(name, p) for name, p in by_hand.named_parameters() if name not in names]
    adamw = torch.optim.AdamW(
        [
            {"params": [p for name, p in rest if name in decayed], "weight_decay": 0.1},
            {"params": [p for name, p in rest if name not in decayed], "weight_decay": 0.0},
        ],
        lr=1e-2,
    )
    by_hand.train()
    for step in range(4):
        pair = steps[2 * step : 2 * step + 2]
        asked = sum(int((batch["labels"] != -100).sum()) for batch in pair)
        by_hand.zero_grad()
        for batch in pair:
            by_hand(**batch, num_items_in_batch=asked).loss.backward()
        assert not tables["item_embeddings.weight"].grad.is_sparse
        torch.nn.utils.clip_grad_norm_(by_hand.parameters(), 0.5)
        left = 1 - step / 4
        for group in adamw.param_groups:
            group["lr"] = 1e-2 * left
        adamw.step()
        with torch.no_grad():
            for name, table in tables.items():
                dense_step(table, table.grad, sums[name], 0.3 * left, 0.1 if name in decayed else 0.0)
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(parameter, by_hand.get_parameter(name), atol=2e-5, rtol=1e-4, msg=name)


def test_untouched_rows_stay_as_they_are(tmp_path):
    # Items 13 to 40 are in no history, and negatives come from the batch.
    histories = [walks().history(user) for user in walks().user_ids.to_pylist()]
    sequences = sequences_of(*histories, n_items=40)
    model = small_model(41)
    before = model.item_embeddings.weight.detach().clone()
    arguments = QUIET | ROWWISE | {"negatives_distribution": "in_batch", "num_train_epochs": 1, "weight_decay": 0.1}
    trainer = trainer_for(tmp_path, sequences, model, **arguments)
    trainer.train()
    after = model.item_embeddings.weight
    sums = trainer.optimizer.state[after]["sum"]
    assert torch.equal(after[13:], before[13:])
    assert torch.equal(after[0], torch.zeros(16))
    assert not sums[13:].any()
    assert sums[0] == 0
    assert (sums[1:13] > 0).all()
    assert (after[1:13] != before[1:13]).any(dim=1).all()


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    arguments = QUIET | ROWWISE | {"save_strategy": "steps", "save_steps": 1}
    whole = trainer_for(tmp_path / "whole", walks(), **arguments)
    whole.train()
    trainer_for(tmp_path / "parts", walks(), callbacks=[StopAt(8)], **arguments).train()
    set_seed(99)
    resumed = trainer_for(tmp_path / "parts", walks(), **arguments)
    resumed.train(resume_from_checkpoint=checkpoint_to_resume(str(tmp_path / "parts"), "true"))
    assert resumed.state.global_step == whole.state.global_step == 15
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    sums = [run.optimizer.state[run.model.item_embeddings.weight]["sum"] for run in (whole, resumed)]
    assert torch.equal(*sums)


def test_norms_are_of_the_sums_of_repeated_rows():
    model = nn.ModuleDict({"table": nn.Embedding(5, 2, sparse=True), "rest": nn.Linear(1, 1)})
    model.table.weight.grad = torch.sparse_coo_tensor(
        [[3, 3]], [[1.0, 0.0], [2.0, 4.0]], (5, 2), check_invariants=True
    )
    model.rest.weight.grad = torch.full((1, 1), 12.0)
    norm = nn.utils.clip_grad_norm_(gradient_values(model).parameters(), 6.5)
    assert norm == 13  # of (3, 4, 12)
    torch.testing.assert_close(model.table.weight.grad.to_dense()[3], torch.tensor([1.5, 2.0]))
    torch.testing.assert_close(model.rest.weight.grad, torch.full((1, 1), 6.0))


def test_refuses_what_cannot_work(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        # As that of a layer-wise optimizer, none of which is installed here.
        whole_model = (torch.optim.SGD, {"optimizer_dict": {}})
        patched.setattr(Trainer, "get_optimizer_cls_and_kwargs", staticmethod(lambda args, model: whole_model))
        with pytest.raises(ValueError, match="`optim` must be an optimizer that takes groups"):
            trainer_for(tmp_path, walks(), **ROWWISE)
    monkeypatch.setattr(SeqRecTrainingArguments, "world_size", 2)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "nccl")
    with pytest.raises(ValueError, match="must come with gloo between 2 processes, got nccl"):
        trainer_for(tmp_path, walks(), **ROWWISE)
