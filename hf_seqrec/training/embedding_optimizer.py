"""An optimizer for item tables of millions of rows: one number of state a row, and only the rows of a batch cost."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import Trainer, TrainingArguments

from ..models.modeling_seqrec import SeqRecPreTrainedModel

EMBEDDING_OPTIMIZERS = ("rowwise_adagrad",)


class RowwiseAdagrad(Optimizer):
    r"""
    Adagrad with one step size for each row of a table, for sparse gradients.

    For each row r of the gradient g, `(d,)`, and no other:

        sum[r] += mean(g[r]^2)
        table[r] = (1 - lr * weight_decay) * table[r] - lr * g[r] / (sqrt(sum[r]) + eps)

    What FBGEMM calls EXACT_ROWWISE_ADAGRAD with decoupled weight decay (pytorch/FBGEMM, `rowwise_adagrad` in
    fbgemm_gpu/codegen/genscript/optimizers.py). "Exact": a row that a batch has twice is updated once, with the sum of
    its gradients. The state of a `(v, d)` table is one vector `(v,)`, where Adam has two tables. A parameter `(v,)`,
    such as a bias of each item, has rows of one number.

    Args:
        params: Parameters or groups of them, float32 or float64, which get sparse gradients.
        lr (`float`, *optional*, defaults to 0.1): Learning rate. A row's first step has about this root mean square.
        eps (`float`, *optional*, defaults to 1e-8): Added to the root.
        weight_decay (`float`, *optional*, defaults to 0.0): Decoupled; of the rows of the gradient alone.

    Raises:
        ValueError: if an argument is out of range, a parameter has another type, or (at a step) a gradient is dense.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 0.1,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        for name, value in {"lr": lr, "eps": eps, "weight_decay": weight_decay}.items():
            if not value >= 0:
                raise ValueError(f"`{name}` must be at least 0, got {value}.")
        super().__init__(params, {"lr": lr, "eps": eps, "weight_decay": weight_decay})
        for table in (table for group in self.param_groups for table in group["params"]):
            if table.dtype not in (torch.float32, torch.float64):
                raise ValueError(
                    f"`params` must be float32 or float64 for row-wise Adagrad, whose steps become too small for "
                    f"{table.dtype}. Load the model with `dtype=torch.float32`; `--bf16 true` computes in bfloat16."
                )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the rows of all gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._update(table, table.grad, group["lr"], group["eps"], group["weight_decay"])
        return loss

    def _update(self, table: Tensor, gradient: Tensor, lr: float, eps: float, weight_decay: float) -> None:
        if not gradient.is_sparse:
            raise ValueError(
                f"Row-wise Adagrad takes sparse gradients, but that of a parameter of shape {tuple(table.shape)} is "
                "dense. Look rows up with `F.embedding(rows, table, sparse=True)` wherever the loss uses the table."
            )
        state = self.state[table]
        if not state:
            state["sum"] = torch.zeros(len(table), dtype=table.dtype, device=table.device)
        gradient = gradient.coalesce()
        rows, values = gradient.indices()[0], gradient.values()  # [u], [u, d] or [u]
        sums = state["sum"][rows] + values.square().view(len(rows), -1).mean(dim=1)
        state["sum"][rows] = sums
        scale = (-lr / sums.sqrt_().add_(eps)).view(-1, *[1] * (values.dim() - 1))
        if weight_decay:
            table[rows] = table[rows].mul_(1 - lr * weight_decay).addcmul_(values, scale)
        else:
            table.index_add_(0, rows, values * scale)


class ItemTableOptimizer(Optimizer):
    r"""
    [`RowwiseAdagrad`] for item tables and any other optimizer for the rest, as one: groups, state and steps together.

    The other optimizer computes what it would compute alone.

    Args:
        params: Groups of parameters, the item tables among them, each with its `weight_decay`.
        tables (`list[torch.Tensor]`): The item tables.
        lr (`float`): Learning rate of the tables.
        dense_class (`type[Optimizer]`): Optimizer of all other parameters.
        dense_options (`dict[str, Any]`): Its arguments.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        tables: list[Tensor],
        lr: float,
        dense_class: type[Optimizer],
        dense_options: dict[str, Any],
    ):
        ids = {id(table) for table in tables}
        dense_groups, table_groups = [], []
        for group in params:
            in_tables = [parameter for parameter in group["params"] if id(parameter) in ids]
            dense_groups.append(group | {"params": [other for other in group["params"] if id(other) not in ids]})
            if in_tables:
                table_groups.append({"params": in_tables, "weight_decay": group.get("weight_decay", 0.0)})
        self._parts = dense_class(dense_groups, **dense_options), RowwiseAdagrad(table_groups, lr)
        super().__init__([group for part in self._parts for group in part.param_groups], {})

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Let both optimizers update their parameters."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        start = 0
        for part in self._parts:
            # Loading a state makes new ones; the schedule changes the groups of this optimizer.
            stop = start + len(part.param_groups)
            part.param_groups, part.state = self.param_groups[start:stop], self.state
            part.step()
            start = stop
        return loss


def item_table_optimizer(
    model: SeqRecPreTrainedModel, args: TrainingArguments, lr: float
) -> tuple[type[Optimizer], dict[str, Any]]:
    r"""
    Give a model's item tables sparse gradients, and return Trainer's `optimizer_cls_and_kwargs` for it.

    Args:
        model ([`SeqRecPreTrainedModel`]): The model, to be trained with a loss that samples.
        args (`TrainingArguments`): Their `optim` is for all parameters but the tables.
        lr (`float`): Learning rate of the tables.

    Raises:
        ValueError: if the model's tables cannot have sparse gradients, or `args.optim` needs the whole model.
    """
    dense_class, dense_options = Trainer.get_optimizer_cls_and_kwargs(args, model)
    takes_groups = isinstance(dense_class, type) and issubclass(dense_class, Optimizer)
    if not takes_groups or {"params", "model", "optimizer_dict"} & dense_options.keys():
        raise ValueError(
            f"`optim` must be an optimizer that takes groups of parameters with `embedding_optimizer`, got "
            f"{args.optim!r}, which takes the whole model. Use `--optim adamw_torch`."
        )
    tables = model.use_sparse_item_gradients()
    return ItemTableOptimizer, {
        "tables": tables,
        "lr": lr,
        "dense_class": dense_class,
        "dense_options": dense_options,
    }


def gradient_values(model: nn.Module) -> nn.Module:
    r"""
    Return a module whose parameters have the gradients of a model's, all dense, to measure and clip their norm.

    For a sparse gradient that is the tensor of its values, without repeated rows: torch knows no norm of a sparse one.
    What is done to it in place is done to the gradient.
    """
    parameters = nn.ParameterList()
    for parameter in model.parameters():
        if parameter.grad is None or not parameter.grad.is_sparse:
            parameters.append(parameter)
            continue
        parameter.grad = parameter.grad.coalesce()
        values = parameter.grad.values()
        stand_in = nn.Parameter(values)
        stand_in.grad = values
        parameters.append(stand_in)
    return parameters
