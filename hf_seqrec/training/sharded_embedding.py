"""
The item embedding shared out by rows among the ranks, for tables that do not fit on one; only for training.

torch's `DTensor` holds such a table, but multiplies with it only after all-gathering it, where the batch is shared out
among the same ranks, and its `loss_parallel` wants all scores at once. Here rows stay where they are and states
travel: every rank scores the targets of all ranks against its own rows, chunk by chunk.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ..models.configuration_seqrec import SeqRecConfig
from ..models.item_scores import count_above, target_scores, top_k_items
from ..models.item_table import ItemTable
from ..models.modeling_seqrec import SeqRecPreTrainedModel

# Scores held at once: 2**23 float32 are 32 MiB.
_SCORES_AT_ONCE = 2**23


def shard_item_embedding(model: SeqRecPreTrainedModel) -> "ShardedItemTable":
    r"""
    Replace a model's item embedding by this rank's rows of it, in place. For all ranks to call, on equal models.

    Raises:
        ValueError: if there are not several ranks, or the model scores the catalog with more than its item embedding.
    """
    if not dist.is_initialized() or dist.get_world_size() < 2:
        raise ValueError(
            "`shard_embeddings` must come with several processes, found one. Launch with `torchrun --nproc_per_node "
            "2 ...`, or leave it out."
        )
    items, bias = model.output_items()
    if bias is not None or items is not model.item_table.weight:
        raise ValueError(
            f"`shard_embeddings` must come with a model that scores the catalog with its item embedding alone, which "
            f"{type(model).__name__} does not. Choose another `--model_type`, or leave it out."
        )
    sharded = ShardedItemTable(model.config, items.detach())
    model.set_input_embeddings(sharded)
    # Otherwise DistributedDataParallel would take the rows for copies of the same.
    model._ddp_params_and_buffers_to_ignore = ["item_embeddings.weight"]  # type: ignore[assignment]
    return sharded


def check_optimizer_shards(checkpoint: str, shards: "ShardedItemTable | None") -> None:
    """Raise unless a checkpoint has the optimizer's state for these shards, or for none."""
    found = sorted(path.name for path in Path(checkpoint).glob("optimizer_shard_*_of_*.pt"))
    n_ranks = int(found[0].removesuffix(".pt").rsplit("_", 1)[1]) if found else 0
    wanted = 0 if shards is None else shards.n_ranks
    if n_ranks != wanted or len(found) != wanted:
        there = f"of an item embedding shared out among {n_ranks} processes" if found else "of a whole item embedding"
        here = f"among {wanted}" if wanted else "whole"
        raise ValueError(
            f"`resume_from_checkpoint` {checkpoint} has the optimizer's state {there} ({len(found)} files), but here "
            f"it is {here}. Go on with the same `--shard_embeddings` and as many processes."
        )


class ShardedItemTable(ItemTable):
    r"""
    Those rows of an item embedding `(v, d)` that are this rank's, and what models do with all of them.

    Its methods communicate: all ranks call the same ones in the same order, each with its own users, who may be of
    different number. What comes out belongs to the rank's own users. Gradients of `weight` are those of the mean over
    ranks of the losses, as DistributedDataParallel makes them for all other parameters.

    Args:
        table (`torch.Tensor` of shape `(v, d)`): The whole table, row 0 of which is padding and stays zero.

    Fields:
        first_row, end_row: The rows that `weight`, `(end_row - first_row, d)`, holds.

    Raises:
        ValueError: if there are fewer rows than ranks.
    """

    def __init__(self, config: SeqRecConfig, table: Tensor) -> None:
        # Without the whole table, which `nn.Embedding` would make. Gradients are those of a full softmax.
        nn.Module.__init__(self)
        self.config, self.padding_idx, self.sparse = config, 0, False
        # Of its own, because DistributedDataParallel's communication comes in between, in another order on each rank.
        self.group = dist.new_group()
        self.rank, self.n_ranks = dist.get_rank(), dist.get_world_size()
        self.num_embeddings, self.embedding_dim = table.shape
        if self.num_embeddings < self.n_ranks:
            raise ValueError(
                f"`shard_embeddings` must have a row for each of the {self.n_ranks} processes, got "
                f"{self.num_embeddings} rows."
            )
        bounds = [self.num_embeddings * rank // self.n_ranks for rank in range(self.n_ranks + 1)]
        self.bounds = list(pairwise(bounds))
        self.first_row, self.end_row = self.bounds[self.rank]
        self.weight = nn.Parameter(table[self.first_row : self.end_row].clone())
        self.register_load_state_dict_pre_hook(self._take_own_rows)

    def padding(self) -> Tensor:
        """Return the padding row, which is zero, `(d,)`; without communication."""
        return self.weight.new_zeros(self.embedding_dim)

    def extra_repr(self) -> str:
        """Say which rows of how many these are."""
        return f"{self.num_embeddings}, {self.embedding_dim}, rows {self.first_row} to {self.end_row - 1}"

    def forward(self, input_ids: Tensor) -> Tensor:
        """Look rows up: `(...)` to `(..., d)`."""
        return _LookUp.apply(self.weight, input_ids.flatten(), self).view(*input_ids.shape, -1)

    def output_items(self) -> Tensor:
        """Raise a `ValueError`: no process has them all."""
        raise ValueError(
            "Processes share out the rows of the item table (`--shard_embeddings`), so none can score the whole "
            "catalog by itself: `item_loss` as a full softmax, `rank_targets` and `recommend` work, called by all "
            "processes at once. Load the saved checkpoint for anything else."
        )

    def full_softmax_loss(
        self,
        hidden_states: Tensor,
        labels: Tensor,
        bias: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Cross-entropy of the right items `(m,)` of this process's states `(m, d)` against the whole catalog."""
        loss = _VocabularyParallelLoss.apply(hidden_states, self.weight, labels, self)
        return loss / (len(labels) if num_items_in_batch is None else num_items_in_batch)

    @torch.no_grad()
    def target_ranks(
        self, hidden_states: Tensor, targets: Tensor, seen_items: Tensor, bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Rank the targets `(b,)` among the whole catalog, as [`~hf_seqrec.models.item_scores.target_ranks`]."""
        states, of_all, seen = self.gathered(hidden_states), self.gathered(targets), self.gathered(seen_items)
        every_state, every_target, every_seen = states.joined(), of_all.joined(), seen.joined()
        scores = target_scores(every_state, self.weight, every_target, first_row=self.first_row)
        # Only the owner of a target has a score of it.
        dist.all_reduce(scores, dist.ReduceOp.MAX, self.group)
        above = torch.stack(
            count_above(every_state, self.weight, scores, every_target, every_seen, first_row=self.first_row)
        )
        dist.all_reduce(above, group=self.group)
        above, seen_above = above.split(states.lengths, dim=1)[self.rank]
        return above - seen_above, above

    @torch.no_grad()
    def top_k(
        self,
        hidden_states: Tensor,
        top_k: int,
        bias: Tensor | None = None,
        excluded_rows: Tensor | None = None,
        candidate_rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return rows and scores of the best items, as [`~hf_seqrec.models.item_scores.top_k_items`]."""
        if candidate_rows is not None:
            self.output_items()
        states = self.gathered(hidden_states)
        excluded = None if excluded_rows is None else self.gathered(excluded_rows).joined()
        rows, scores = top_k_items(states.joined(), self.weight, top_k, None, excluded, self.first_row)
        # A rank with fewer rows than `top_k` has fewer of them.
        missing = (0, top_k - rows.shape[1])
        rows, scores = nn.functional.pad(rows, missing), nn.functional.pad(scores, missing, value=-torch.inf)
        all_rows, all_scores = ([torch.empty_like(best) for _ in range(self.n_ranks)] for best in (rows, scores))
        dist.all_gather(all_rows, rows, self.group)
        dist.all_gather(all_scores, scores, self.group)
        scores, order = torch.cat(all_scores, dim=1).sort(dim=1, descending=True, stable=True)
        rows = torch.cat(all_rows, dim=1).gather(1, order)
        own_rows, own_scores = (best.split(states.lengths)[self.rank][:, :top_k] for best in (rows, scores))
        return own_rows, own_scores

    @torch.no_grad()
    def whole_table(self) -> Tensor | None:
        """Return the whole table `(v, d)` in the memory of the CPU on rank 0, `None` elsewhere."""
        table = None
        if self.rank == 0:
            table = torch.empty(self.num_embeddings, self.embedding_dim, dtype=self.weight.dtype)
            table[: self.end_row] = self.weight
        # One after the other: rank 0 has room for one more shard.
        for owner, (first, end) in enumerate(self.bounds[1:], start=1):
            if self.rank == owner:
                dist.send(self.weight.contiguous(), dst=0, group=self.group)
            elif table is not None:
                rows = self.weight.new_empty(end - first, self.embedding_dim)
                dist.recv(rows, src=owner, group=self.group)
                table[first:end] = rows
        return table

    @property
    def optimizer_file(self) -> str:
        """Name of the file of a checkpoint that holds the state of this rank's optimizer."""
        return f"optimizer_shard_{self.rank}_of_{self.n_ranks}.pt"

    @property
    def n_elsewhere(self) -> int:
        """Numbers of the table that other ranks have."""
        return self.num_embeddings * self.embedding_dim - self.weight.numel()

    def clip_grad_norm(self, model: nn.Module, max_norm: float) -> Tensor:
        """Scale gradients down to a norm over all rows and the rest, in place, and return what it was."""
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        squares = [gradient.float().square().sum() for gradient in gradients if gradient is not self.weight.grad]
        of_table = self.weight.new_zeros((), dtype=torch.float32)
        if self.weight.grad is not None:
            of_table += self.weight.grad.float().square().sum()
        dist.all_reduce(of_table, group=self.group)
        norm = torch.stack([*squares, of_table]).sum().sqrt()
        # As torch.nn.utils.clip_grad_norm_ does it.
        scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(scale.to(gradient.dtype))
        return norm

    def gathered(self, values: Tensor) -> "_OfAllRanks":
        """Gather tensors `(n,)` or `(n, s)` of all ranks, of any `n`; padded with 0 to the largest `s`."""
        return _OfAllRanks(values, self.group, self.n_ranks)

    def places(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return which of some catalog rows `(n,)` are items of this shard, and where in `weight` these are."""
        mine = (rows >= max(self.first_row, 1)) & (rows < self.end_row)
        return mine, rows[mine] - self.first_row

    def chunks(self, n_positions: int) -> Iterator[slice]:
        """Yield parts of `weight`, without the padding row, whose scores are held at once."""
        size = max(1, _SCORES_AT_ONCE // max(n_positions, 1))
        for first in range(1 if self.first_row == 0 else 0, len(self.weight), size):
            yield slice(first, min(first + size, len(self.weight)))

    def _take_own_rows(self, module: Any, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """Of a checkpoint's whole table take the rows of this rank."""
        name = f"{prefix}weight"
        if name in state_dict and len(state_dict[name]) == self.num_embeddings:
            state_dict[name] = state_dict[name][self.first_row : self.end_row]


class _OfAllRanks:
    """Tensors `(n,)` or `(n, s)` of all ranks, gathered; `lengths` are their `n`, and `s` becomes the largest."""

    def __init__(self, values: Tensor, group: Any, n_ranks: int) -> None:
        shape = torch.tensor([len(values), values.shape[1] if values.dim() > 1 else 0], device=values.device)
        shapes = [torch.empty_like(shape) for _ in range(n_ranks)]
        dist.all_gather(shapes, shape, group)
        self.lengths = [int(length) for length, _ in shapes]
        padding = [0, 0] * (values.dim() - 1) + [0, max(self.lengths) - len(values)]
        if values.dim() > 1:
            padding[1] = max(int(width) for _, width in shapes) - values.shape[1]
        padded = nn.functional.pad(values, padding).contiguous()
        self.padded = [torch.empty_like(padded) for _ in range(n_ranks)]
        dist.all_gather(self.padded, padded, group)

    def joined(self) -> Tensor:
        """One rank's after the other's, `(n of all ranks, ...)`."""
        return torch.cat([values[:length] for values, length in zip(self.padded, self.lengths, strict=True)])


class _LookUp(torch.autograd.Function):
    """Rows of the table for ids `(n,)`: each rank puts in those that it has, for all ranks."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, shards: ShardedItemTable) -> Tensor:
        all_ids = shards.gathered(ids)
        ctx.shards, ctx.ids = shards, all_ids.joined()
        mine, places = shards.places(ctx.ids)
        found = weight.new_zeros(len(ctx.ids), weight.shape[1])
        found[mine] = weight[places]
        dist.all_reduce(found, group=shards.group)
        return found.split(all_ids.lengths)[shards.rank].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_found: Tensor) -> tuple[Tensor, None, None]:
        shards = ctx.shards
        grads = shards.gathered(grad_found).joined()
        mine, places = shards.places(ctx.ids)
        grad_weight = torch.zeros_like(shards.weight)
        grad_weight.index_add_(0, places, grads[mine].to(grad_weight.dtype))
        return grad_weight / shards.n_ranks, None, None


class _VocabularyParallelLoss(torch.autograd.Function):
    """Sum over this rank's positions of `logsumexp(scores) - score of the target`; scores are computed twice."""

    @staticmethod
    def forward(ctx: Any, hidden_states: Tensor, weight: Tensor, labels: Tensor, shards: ShardedItemTable) -> Tensor:
        with torch.autocast(hidden_states.device.type, enabled=False):
            of_ranks = shards.gathered(hidden_states.to(weight.dtype))
            hidden, targets = of_ranks.joined(), shards.gathered(labels).joined()  # [m of all ranks, d], [m]
            highest = torch.full((len(targets),), -torch.inf, dtype=torch.float32, device=targets.device)
            total = torch.zeros_like(highest)  # of exp(score - highest)
            for rows in shards.chunks(len(targets)):
                scores = (hidden @ weight[rows].T).float()
                higher = torch.maximum(highest, scores.amax(dim=1))
                total = total * (highest - higher).exp() + scores.sub_(higher[:, None]).exp_().sum(dim=1)
                highest = higher
            own_highest = highest.clone()
            dist.all_reduce(highest, dist.ReduceOp.MAX, shards.group)
            total *= (own_highest - highest).exp()
            right_scores = torch.zeros_like(total)
            mine, places = shards.places(targets)
            right_scores[mine] = (hidden[mine] * weight[places]).sum(dim=1).float()
            both = torch.stack([total, right_scores])
            dist.all_reduce(both, group=shards.group)
            log_sum_exp = both[0].log() + highest
            losses = log_sum_exp - both[1]
        ctx.save_for_backward(hidden, weight, targets, log_sum_exp)
        ctx.shards, ctx.lengths, ctx.hidden_dtype = shards, of_ranks.lengths, hidden_states.dtype
        return losses.split(of_ranks.lengths)[shards.rank].sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor, Tensor, None, None]:
        hidden, weight, targets, log_sum_exp = ctx.saved_tensors
        shards = ctx.shards
        # What each position's loss counts, on its own rank.
        scales = shards.gathered(grad_loss.float().view(1)).joined()
        lengths = torch.tensor(ctx.lengths, device=scales.device)
        scale = scales.repeat_interleave(lengths)[:, None]  # [m of all ranks, 1]
        weighted = hidden * scale.to(hidden.dtype)
        grad_hidden, grad_weight = torch.zeros_like(hidden), torch.zeros_like(weight)
        for rows in shards.chunks(len(targets)):
            scores = (hidden @ weight[rows].T).float()
            probabilities = scores.sub_(log_sum_exp[:, None]).exp_().to(weight.dtype)
            grad_hidden.addmm_(probabilities, weight[rows])
            grad_weight[rows].addmm_(probabilities.T, weighted)
        mine, places = shards.places(targets)
        grad_hidden[mine] -= weight[places]
        grad_hidden *= scale.to(hidden.dtype)
        grad_weight.index_add_(0, places, weighted[mine], alpha=-1)
        dist.all_reduce(grad_hidden, group=shards.group)
        own = grad_hidden.split(ctx.lengths)[shards.rank].to(ctx.hidden_dtype)
        return own, grad_weight / shards.n_ranks, None, None
