"""From encoder states to the catalog: the best items, and the rank of a held-out one, in chunks of the catalog."""

from collections.abc import Iterator

import torch
from torch import Tensor

# Scores held at once, over all users of the batch: 2**25 float32 are 128 MiB.
_SCORES_AT_ONCE = 2**25


def top_k_items(
    hidden_states: Tensor,
    item_embeddings: Tensor,
    top_k: int,
    bias: Tensor | None = None,
    excluded_rows: Tensor | None = None,
    first_row: int = 0,
) -> tuple[Tensor, Tensor]:
    r"""
    Return the rows and the scores of the `top_k` best items of each user, best first, each `(b, top_k)`.

    Args:
        hidden_states (`torch.Tensor` of shape `(b, d)`): Encoder output at the last position of each history.
        item_embeddings (`torch.Tensor` of shape `(v, d)`): Output embedding of every catalog row; row 0 never wins.
        top_k (`int`): How many items; at most `v`.
        bias (`torch.Tensor` of shape `(v,)`, *optional*): Added to the scores.
        excluded_rows (`torch.LongTensor` of shape `(b, s)`, *optional*): Rows that must not win, padded with 0. Where
            fewer than `top_k` items are left, the rest of the scores are `-inf`.
        first_row (`int`, *optional*, defaults to 0): Catalog row of the first embedding, where they are a part.
    """
    best_rows = hidden_states.new_empty((len(hidden_states), 0), dtype=torch.long)
    best_scores = hidden_states.new_empty((len(hidden_states), 0), dtype=torch.float32)
    for start, scores in _score_chunks(hidden_states, item_embeddings, bias, first_row):
        if excluded_rows is not None:
            scores.masked_fill_(_rows_in_chunk(excluded_rows, start, scores.shape[1]), -torch.inf)
        chunk_scores, chunk_rows = scores.topk(min(top_k, scores.shape[1]), dim=1)
        best_scores, order = torch.cat([best_scores, chunk_scores], dim=1).sort(dim=1, descending=True, stable=True)
        best_rows = torch.cat([best_rows, chunk_rows + start], dim=1).gather(1, order)[:, :top_k]
        best_scores = best_scores[:, :top_k]
    return best_rows, best_scores


def target_ranks(
    hidden_states: Tensor,
    item_embeddings: Tensor,
    targets: Tensor,
    seen_items: Tensor,
    bias: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""
    Return the rank of each held-out item among the whole catalog, without and with the user's history, each `(b,)`.

    Ranks start at 0. Ties count against the model: the rank is the number of other items that score at least as high.

    Args:
        hidden_states (`torch.Tensor` of shape `(b, d)`): Encoder output at the last position of each history.
        item_embeddings (`torch.Tensor` of shape `(v, d)`): Output embedding of every catalog row; row 0 is no item.
        targets (`torch.LongTensor` of shape `(b,)`): Row of the held-out item.
        seen_items (`torch.LongTensor` of shape `(b, s)`): Rows of the user's history, padded with 0. They do not
            compete in the first of the two ranks. The target always takes part, even when it is in the history.
        bias (`torch.Tensor` of shape `(v,)`, *optional*): Added to the scores.

    Returns:
        `tuple[torch.LongTensor, torch.LongTensor]`: ranks with the history excluded, and with it.

    Raises:
        ValueError: if a score is NaN or infinite.
    """
    scores = target_scores(hidden_states, item_embeddings, targets, bias)
    above, seen_above = count_above(hidden_states, item_embeddings, scores, targets, seen_items, bias)
    return above - seen_above, above


def target_scores(
    hidden_states: Tensor, item_embeddings: Tensor, targets: Tensor, bias: Tensor | None = None, first_row: int = 0
) -> Tensor:
    """Score the targets `(b,)` by the very products that score the catalog, so that ties are exact; others -inf."""
    targets = targets[:, None]
    found = torch.full_like(targets, -torch.inf, dtype=torch.float32)
    for start, scores in _score_chunks(hidden_states, item_embeddings, bias, first_row):
        local = targets - start
        inside = (local >= 0) & (local < scores.shape[1])
        found = torch.where(inside, scores.gather(1, local.clamp(0, scores.shape[1] - 1)), found)
    return found.squeeze(1)


def count_above(
    hidden_states: Tensor,
    item_embeddings: Tensor,
    scores_of_targets: Tensor,
    targets: Tensor,
    seen_items: Tensor,
    bias: Tensor | None = None,
    first_row: int = 0,
) -> tuple[Tensor, Tensor]:
    """Count the other items that score at least as high as the target, and the seen ones of them, `(b,)` each."""
    targets = targets[:, None]
    above = torch.zeros_like(targets)
    seen_above = torch.zeros_like(targets)
    for start, scores in _score_chunks(hidden_states, item_embeddings, bias, first_row):
        # The padding row is at -inf.
        _check_finite(scores[:, 1:] if start == 0 else scores)
        is_above = (scores >= scores_of_targets[:, None]) & ~_rows_in_chunk(targets, start, scores.shape[1])
        # A chunk has fewer than 2**31 items; a sum in int64 takes a CPU twice as long.
        above += is_above.sum(dim=1, keepdim=True, dtype=torch.int32)
        is_above &= _rows_in_chunk(seen_items, start, scores.shape[1])
        seen_above += is_above.sum(dim=1, keepdim=True, dtype=torch.int32)
    return above.squeeze(1), seen_above.squeeze(1)


def candidate_ranks(
    hidden_states: Tensor,
    item_embeddings: Tensor,
    targets: Tensor,
    negatives: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    r"""
    Return the rank of each held-out item among itself and its negatives, `(b,)`.

    Ranks start at 0. Ties count against the model: the rank is the number of negatives that score at least as high.

    Args:
        hidden_states (`torch.Tensor` of shape `(b, d)`): Encoder output at the last position of each history.
        item_embeddings (`torch.Tensor` of shape `(v, d)`): Output embedding of every catalog row.
        targets (`torch.LongTensor` of shape `(b,)`): Row of the held-out item.
        negatives (`torch.LongTensor` of shape `(b, n)`): Rows it is compared with, other than its own.
        bias (`torch.Tensor` of shape `(v,)`, *optional*): Added to the scores.

    Raises:
        ValueError: if a score is NaN or infinite.
    """
    candidates = torch.cat([targets[:, None], negatives], dim=1)
    embeddings = item_embeddings[candidates].to(hidden_states.dtype)  # [b, 1 + n, d]
    # Not a matrix product, which may add up the same numbers in another order from row to row: no tie would be safe.
    scores = (embeddings * hidden_states[:, None]).sum(dim=-1).float()
    if bias is not None:
        scores = scores + bias.float()[candidates]
    _check_finite(scores)
    return (scores[:, 1:] >= scores[:, :1]).sum(dim=1)


def _check_finite(scores: Tensor) -> None:
    """Raise where a score `(b, n)` is NaN or infinite."""
    # A sum is finite only if all its parts are, and costs less than to look at each of them.
    if torch.isfinite(scores.sum(dim=1)).all():
        return
    is_broken = ~torch.isfinite(scores).all(dim=1)
    if is_broken.any():
        raise ValueError(
            f"The scores of {int(is_broken.sum())} of the {len(scores)} users of this batch are NaN or infinite, user "
            f"{int(is_broken.nonzero()[0])} first, so their targets have no rank. The weights are damaged or the "
            "training diverged: check the loss and lower the learning rate."
        )


def score_items(hidden_states: Tensor, item_embeddings: Tensor, bias: Tensor | None = None) -> Tensor:
    """Score every catalog row: `(..., d)` states to `(..., v)` float32 scores, the padding row at `-inf`."""
    scores = (hidden_states @ item_embeddings.T.to(hidden_states.dtype)).float()
    if bias is not None:
        scores = scores + bias.float()
    padding = torch.zeros(scores.shape[-1], dtype=torch.bool, device=scores.device)
    padding[0] = True
    return scores.masked_fill(padding, -torch.inf)


def _score_chunks(
    hidden_states: Tensor, item_embeddings: Tensor, bias: Tensor | None, first_row: int = 0
) -> Iterator[tuple[int, Tensor]]:
    """Yield `(first catalog row, scores [b, rows])` for consecutive chunks of the rows that begin at `first_row`."""
    chunk = max(1, _SCORES_AT_ONCE // max(1, len(hidden_states)))
    for begin in range(0, len(item_embeddings), chunk):
        weight = item_embeddings[begin : begin + chunk].to(hidden_states.dtype)
        scores = (hidden_states @ weight.T).float()
        if bias is not None:
            scores += bias[begin : begin + chunk]
        if first_row + begin == 0:
            scores[:, 0] = -torch.inf
        yield first_row + begin, scores


def _rows_in_chunk(rows: Tensor, start: int, size: int) -> Tensor:
    """Mark which catalog rows `start..start+size-1` are among each user's `rows` (`(b, s)` to bool `(b, size)`)."""
    # Rows of other chunks land in one extra column, which is cut off.
    local = torch.where((rows >= start) & (rows < start + size), rows - start, size)
    mask = torch.zeros((len(rows), size + 1), dtype=torch.bool, device=rows.device)
    return mask.scatter_(1, local, True)[:, :size]
