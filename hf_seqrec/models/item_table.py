"""The item table: the one object that embeds items and scores the catalog with them."""

import torch
from torch import Tensor, nn

from .configuration_seqrec import SeqRecConfig
from .item_scores import candidate_ranks, score_items, target_ranks, top_k_items
from .loss_full_softmax import full_softmax_loss
from .loss_sampled import bce_loss, bpr_loss, gbce_loss, sampled_softmax_loss


class ItemTable(nn.Embedding):
    r"""
    Embeddings of the catalog's rows, `(v, d)`, which are looked up at the input and scored against at the output.

    Whatever else an item's embedding is made of belongs here, and so does everything that looks at all items: losses,
    ranks, the best items. `hf_seqrec.training.sharded_embedding` has the same where processes share out the rows.

    Every method takes the `bias` `(n_items + 1,)` that a model adds to its scores, if it has one.

    Args:
        config ([`SeqRecConfig`]): With the number of rows, the width and the loss.
    """

    def __init__(self, config: SeqRecConfig) -> None:
        super().__init__(config.vocab_size, config.hidden_size, padding_idx=0)
        self.config = config

    def output_items(self) -> Tensor:
        """Return the embeddings that score the catalog, `(n_items + 1, d)`: of padding and of all items, in order."""
        n_scored = self.num_embeddings - (self.config.n_special_rows - 1)
        # Other special rows come last. The parameter itself where there is none, so that its gradient may be sparse.
        return self.weight if n_scored == self.num_embeddings else self.weight[:n_scored]

    def padding(self) -> Tensor:
        """Return the embedding of the padding row, `(d,)`, for code that encodes padding like an item."""
        return self(torch.zeros((), dtype=torch.long, device=self.weight.device))

    def scores(self, hidden_states: Tensor, bias: Tensor | None = None) -> Tensor:
        """Score every catalog row: `(..., d)` states to `(..., n_items + 1)`, the padding row at `-inf`."""
        return score_items(hidden_states, self.output_items(), bias)

    def loss(
        self,
        hidden_states: Tensor,
        labels: Tensor,
        bias: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        negatives: Tensor | None = None,
        negatives_log_q: Tensor | None = None,
    ) -> Tensor:
        r"""
        Compute `config.item_loss`, a scalar; without negatives, as in evaluation, the full softmax.

        Args:
            hidden_states (`torch.Tensor` of shape `(m, d)`): States of the labelled positions.
            labels (`torch.LongTensor` of shape `(m,)`): Row of the right item of each.
            bias (`torch.Tensor` of shape `(n_items + 1,)`, *optional*): Added to the scores.
            num_items_in_batch (`int` or scalar tensor, *optional*): Divides the sum instead of `m`.
            negatives (`torch.LongTensor` of shape `(m, n)` or `(n,)`, *optional*): Rows to compare with.
            negatives_log_q (`torch.Tensor` of the same shape, *optional*): Log-probability of each to be drawn.
        """
        if negatives is None:
            return self.full_softmax_loss(hidden_states, labels, bias, num_items_in_batch)
        # A slice of the table, which `output_items` may be, would have a dense gradient.
        items = self.weight if self.sparse else self.output_items()
        inputs, rest = (hidden_states, items, labels, negatives), (bias, num_items_in_batch, self.sparse)
        kind = self.config.item_loss
        if kind == "sampled_softmax":
            assert negatives_log_q is not None  # the model has checked it
            return sampled_softmax_loss(*inputs, negatives_log_q, *rest)
        if kind == "gbce":
            return gbce_loss(*inputs, self.config.gbce_t, self.config.n_items, *rest, self.config.constant_bias)
        return bce_loss(*inputs, *rest, self.config.constant_bias) if kind == "bce" else bpr_loss(*inputs, *rest)

    def full_softmax_loss(
        self,
        hidden_states: Tensor,
        labels: Tensor,
        bias: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """Cross-entropy of the right items `(m,)` against the whole catalog; see [`loss`]."""
        smoothing = self.config.label_smoothing if self.training else 0.0
        return full_softmax_loss(hidden_states, self.output_items(), labels, bias, num_items_in_batch, smoothing)

    def target_ranks(
        self, hidden_states: Tensor, targets: Tensor, seen_items: Tensor, bias: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Rank targets `(b,)` among the whole catalog, without and with the history; see `item_scores`."""
        return target_ranks(hidden_states, self.output_items(), targets, seen_items, bias)

    def candidate_ranks(
        self, hidden_states: Tensor, targets: Tensor, negatives: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        """Rank targets `(b,)` among themselves and negatives `(b, n)`; see `item_scores`."""
        return candidate_ranks(hidden_states, self.output_items(), targets, negatives, bias)

    def top_k(
        self,
        hidden_states: Tensor,
        top_k: int,
        bias: Tensor | None = None,
        excluded_rows: Tensor | None = None,
        candidate_rows: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        r"""
        Return the rows and scores of the best items of each user, `(b, top_k)` each, at `-inf` where none is left.

        Args:
            hidden_states (`torch.Tensor` of shape `(b, d)`): States that predict.
            top_k (`int`): How many items.
            bias (`torch.Tensor` of shape `(n_items + 1,)`, *optional*): Added to the scores.
            excluded_rows (`torch.LongTensor` of shape `(b, s)`, *optional*): Rows to leave out, padded with 0.
            candidate_rows (`torch.LongTensor` of shape `(c,)`, *optional*): Choose from these alone: ascending,
                different, row 0 first.
        """
        items = self.output_items()
        if candidate_rows is None:
            return top_k_items(hidden_states, items, top_k, bias, excluded_rows)
        items, bias = items[candidate_rows], None if bias is None else bias[candidate_rows]
        if excluded_rows is not None:
            is_candidate = torch.isin(excluded_rows, candidate_rows)
            excluded_rows = torch.searchsorted(candidate_rows, excluded_rows) * is_candidate
        places, scores = top_k_items(hidden_states, items, top_k, bias, excluded_rows)
        return candidate_rows[places], scores
