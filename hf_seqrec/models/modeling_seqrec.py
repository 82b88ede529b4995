"""What every sequential recommender does: embed the history, encode it, score the catalog, learn, recommend."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub import CommitInfo
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ModelOutput
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import capture_outputs

from .configuration_seqrec import SeqRecConfig
from .history_cache import HistoryCache
from .history_context import HistoryContext, encode_by_length
from .history_padding import RightPadded, last_real_position, right_padded
from .item_table import ItemTable
from .push_to_hub import push_model


@dataclass
class SeqRecOutput(ModelOutput):
    r"""
    What [`SeqRecPreTrainedModel.forward`] returns.

    Args:
        loss (`torch.FloatTensor`, *optional*, returned when `labels` are given): Mean over the labelled positions.
        logits (`torch.FloatTensor`, *optional*): Scores of every catalog row (`v = n_items + 1`), the padding row at
            `-inf`: `(b, v)` for the item after each history, or where `output_logits=True` at every position of
            `last_hidden_state`.
        last_hidden_state (`torch.FloatTensor` of shape `(b, l, d)`): Encoder output; `(b, 1, d)` where only the item
            after each history was asked for.
        cache ([`HistoryCache`], *optional*): State after the last item, to go on from.
        hidden_states (`tuple[torch.FloatTensor]`, *optional*): Output of each layer.
        attentions (`tuple[torch.FloatTensor]`, *optional*): Attention weights of each layer.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    last_hidden_state: Tensor | None = None
    cache: HistoryCache | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None

    @property
    def cache_params(self) -> HistoryCache | None:
        """The cache, by the name that it had before transformers 5.24."""
        return self.cache


class SeqRecPreTrainedModel(PreTrainedModel):
    r"""
    Base of all sequential recommenders: owns embed, score, loss, rank and recommend.

    A model adds its layers, calls `self.post_init()` at the end of its `__init__`, and writes `encode`.
    """

    config: SeqRecConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    # Commit, branch or tag on the Hub that the weights came from; `None` where they come from nowhere.
    loaded_revision: str | None = None
    # Every subclass is saved with its code and an `auto_map`, so that it loads where this package is absent.
    _auto_class = "AutoModel"  # type: ignore[assignment]  # transformers declares it None

    def __init__(self, config: SeqRecConfig) -> None:
        super().__init__(config)
        self.item_embeddings = ItemTable(config)

    def get_input_embeddings(self) -> ItemTable:
        """Return the item table, row 0 of which is padding."""
        return self.item_embeddings

    def set_input_embeddings(self, value: nn.Module) -> None:
        """
        Replace the item table; row 0 must be zero.

        Raises:
            TypeError: if it is no [`ItemTable`].
        """
        if not isinstance(value, ItemTable):
            raise TypeError(
                f"`value` must be an `ItemTable`, got {type(value).__name__}. To change which items there are, use "
                "`replace_items`, or `adapt_to_catalog` of the package."
            )
        self.item_embeddings = value

    @property
    def item_table(self) -> ItemTable:
        """
        What embeds items and scores the catalog.

        Raises:
            TypeError: if something that cannot score the catalog was put in its place.
        """
        # peft trains a copy of the whole table in a wrapper that has the table's methods.
        if not isinstance(self.item_embeddings, ItemTable) and not hasattr(self.item_embeddings, "target_ranks"):
            raise TypeError(
                f"`item_embeddings` must be an `ItemTable`, got {type(self.item_embeddings).__name__}: the catalog is "
                "scored with it, and what is put around it, such as LoRA's adapter, would be left out there. Leave "
                "`item_embeddings` out of `target_modules`, or train it whole: `modules_to_save=['item_embeddings']`."
            )
        return self.item_embeddings

    def item_bias(self) -> Tensor | None:
        """Return what is added to the score of each catalog row, `(n_items + 1,)`; `None` for most models."""
        return None

    def encode(self, inputs_embeds: Tensor, context: HistoryContext) -> Tensor:
        r"""
        Encode item embeddings; what a model has to write. Its layers are run by [`run_layers`].

        Args:
            inputs_embeds (`torch.Tensor` of shape `(b, l, d)`): Item embeddings, oldest first, padded on the right.
            context ([`HistoryContext`]): Which positions are real, state to go on from, and what is needed.

        Returns:
            `torch.Tensor` of shape `(b, l, d)`: states; those at padding may be anything finite. With
            `context.only_last` they may be `(b, 1, d)`: those at the last real position of each row.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define `encode`.")

    def run_layers(
        self, hidden_states: Tensor, context: HistoryContext, layers: Iterable[nn.Module] | None = None
    ) -> Tensor:
        r"""
        Run layers one after the other; only the last of them may leave out what is not needed.

        Args:
            hidden_states (`torch.Tensor` of shape `(b, l, d)`): Input of the first layer.
            context ([`HistoryContext`]): What each of them is told.
            layers (`Iterable[nn.Module]`, *optional*): By default `self.layers`.
        """
        layers = list(self.layers if layers is None else layers)  # type: ignore[arg-type]  # a ModuleList
        before = context._replace(only_last=False)
        for layer in layers:
            hidden_states = layer(hidden_states, context if layer is layers[-1] else before)
        return hidden_states

    def encode_last(self, inputs_embeds: Tensor, context: HistoryContext) -> Tensor:
        """Encode as `encode` does, and return the state `(b, d)` at the last real position of each row alone."""
        states = self.encode(inputs_embeds, context._replace(only_last=inputs_embeds.shape[1] > 1))
        return states[:, 0] if states.shape[1] == 1 else last_real_position(states, context.attention_mask)

    def with_query(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        r"""
        Turn right-padded histories into what is encoded to predict the item after each: the histories themselves.

        BERT4Rec appends its mask row here. The state at a row's last real position is the one that predicts.

        Args:
            input_ids (`torch.LongTensor` of shape `(b, l)`): Catalog rows.
            attention_mask (`torch.LongTensor` of shape `(b, l)`): 1 at real positions, which come first in each row.
        """
        return input_ids, attention_mask

    def output_items(self) -> tuple[Tensor, Tensor | None]:
        """Return what scores the catalog: the embedding `(v, d)` of every row, and a bias `(v,)` or `None`."""
        return self.item_table.output_items(), self.item_bias()

    def use_sparse_item_gradients(self) -> list[Tensor]:
        """Let the item table, and the bias of the scores, have gradients of a batch's rows alone; return both."""
        table, bias = self.item_table, self.item_bias()
        table.sparse = True
        return [table.weight, *([] if bias is None else [bias])]

    def item_tables(self) -> dict[str, Tensor]:
        """Return the parameters that have a row for each item, by name: padding first, other special rows last."""
        return {"item_embeddings.weight": self.item_embeddings.weight}

    @torch.no_grad()
    def replace_items(self, tables: dict[str, Tensor]) -> None:
        r"""
        Take the values of other items, and as many items as they are; padding and other special rows stay.

        Args:
            tables (`dict[str, torch.Tensor]`): For each of [`item_tables`], by name, the values of rows `1..n_items`,
                `(n_items, ...)`.

        Raises:
            ValueError: if a table is missing or unknown, or their shapes do not fit.
        """
        self.item_table.output_items()  # raises where processes share out the rows
        before = self.item_tables()
        shapes = {name: tuple(values.shape[1:]) for name, values in tables.items()}
        wanted = {name: tuple(table.shape[1:]) for name, table in before.items()}
        if shapes != wanted or len({len(values) for values in tables.values()}) != 1:
            raise ValueError(
                f"`tables` must hold as many rows of each of {', '.join(wanted)} as there are items, of shapes "
                f"{wanted}, got { ({name: tuple(values.shape) for name, values in tables.items()}) }."
            )
        n_items = self.config.n_items
        for name, table in before.items():
            values = tables[name].to(table)
            table.data = torch.cat([table.data[:1], values, table.data[1 + n_items :]])
            table.grad = None
        self.item_embeddings.num_embeddings = len(self.item_embeddings.weight)
        self.config.vocab_size = type(self.config).vocab_size_for(len(values))
        # Its catalog is not that of the checkpoint it came from any more.
        self.name_or_path = ""
        self.config.catalog_fingerprint = None

    # capture_outputs finds the layers by `_can_record_outputs` and answers output_hidden_states and output_attentions.
    @capture_outputs
    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        cache: HistoryCache | None = None,
        use_cache: bool | None = None,
        num_items_in_batch: Tensor | int | None = None,
        output_logits: bool | None = None,
        negatives: Tensor | None = None,
        negatives_log_q: Tensor | None = None,
        only_last: bool = False,
        cache_params: HistoryCache | None = None,
        **kwargs: Any,
    ) -> SeqRecOutput:
        r"""
        Encode histories and, with `labels`, compute the training loss; without, score the whole catalog.

        Where the item after each history is asked for (`only_last`, or neither `labels` nor `output_logits`),
        `with_query` has its say.

        Args:
            input_ids (`torch.LongTensor` of shape `(b, l)`): Catalog rows, oldest first, padded with 0 on either side.
            attention_mask (`torch.LongTensor` of shape `(b, l)`, *optional*): 1 at real positions. By default every
                position whose row is not 0.
            labels (`torch.LongTensor` of shape `(b, l)` or `(b,)`, *optional*): Row of the item to predict at each
                position (already shifted: the next item), -100 where nothing is asked; or the item after each history,
                which means `only_last`.
            cache ([`HistoryCache`], *optional*): State to go on from, as returned by an earlier call.
            use_cache (`bool`, *optional*): Return the state after the last item. Defaults to `config.use_cache`, and
                to true when `cache` is given.
            num_items_in_batch (`int` or scalar tensor, *optional*): Labelled positions over all accumulated batches
                and processes, by which Trainer wants the loss divided.
            output_logits (`bool`, *optional*): With `True`, `logits` are `(b, l, v)`, at every position; with `False`
                there are none. By default they are `(b, v)`, for the item after each history, and left out when
                `labels` are given.
            negatives (`torch.LongTensor` of shape `(b, l, n)` or `(n,)`, *optional*): Rows that the right items are
                compared with, where `config.item_loss` samples them; `(b, n)` where `labels` are `(b,)`. Without, the
                loss in evaluation mode is the full softmax.
            negatives_log_q (`torch.FloatTensor` of the same shape, *optional*): Log-probability of each to be drawn,
                for the sampled softmax.
            only_last (`bool`, *optional*, defaults to `False`): Encode what the item after each history asks for and
                no more, which is cheaper: `last_hidden_state` is `(b, 1, d)`.
            cache_params ([`HistoryCache`], *optional*): `cache`, by the name that it had before transformers 5.24.

        Raises:
            ValueError: if a row is out of the catalog, a history is empty or too long, no position has a label, state
                is asked of a model that has none, or the negatives are not those that `config.item_loss` wants.
        """
        if attention_mask is None:
            attention_mask = (input_ids != 0).long()
        self._check_input_ids(input_ids)
        cache = self._cache_to_fill(_either_name(cache, cache_params), use_cache)
        scores_next = labels is None and output_logits is None
        only_last = only_last or (labels is not None and labels.dim() == 1)
        padding = right_padded(attention_mask)
        mask = padding.attention_mask
        rows = padding.gather(input_ids).masked_fill(mask == 0, 0)
        if only_last or scores_next:
            self._check_not_empty(mask)
            rows, mask = self.with_query(rows, mask)
        if only_last or mask is not padding.attention_mask:
            # One position a row, which is the last in any layout; or positions that are not the caller's any more.
            padding = RightPadded(mask, None)
        records_layers = any(
            kwargs.get(name, getattr(self.config, name, False))
            for name in ("output_hidden_states", "output_attentions")
        )
        context = HistoryContext.from_mask(mask, cache, only_last)
        in_groups = cache is None and not records_layers and (only_last or labels is not None)
        hidden_states = self._encode_batch(self.item_embeddings(rows), context, in_groups, records_layers)

        loss = logits = None
        if labels is not None:
            loss = self._batch_loss(hidden_states, labels, padding, num_items_in_batch, negatives, negatives_log_q)
        if output_logits:
            logits = self.item_table.scores(padding.scatter(hidden_states), self.item_bias())
        elif scores_next:
            states = hidden_states[:, 0] if only_last else last_real_position(hidden_states, mask)
            logits = self.item_table.scores(states, self.item_bias())
        return SeqRecOutput(loss=loss, logits=logits, last_hidden_state=padding.scatter(hidden_states), cache=cache)

    def _cache_to_fill(self, cache: HistoryCache | None, use_cache: bool | None) -> HistoryCache | None:
        use_cache = self.config.use_cache if use_cache is None else use_cache
        no_cache_reason = self.config.stateless_because
        if (use_cache or cache is not None) and no_cache_reason is not None:
            raise ValueError(
                f"`use_cache=True` and `cache` ask for a state to go on from, but {no_cache_reason}. "
                "Leave both out and encode the whole history at each call."
            )
        return HistoryCache() if cache is None and use_cache else cache

    def _encode_batch(
        self, inputs_embeds: Tensor, context: HistoryContext, in_groups: bool, records_layers: bool
    ) -> Tensor:
        """Encode `(b, l, d)`, or with `context.only_last` into `(b, 1, d)`; `in_groups` of rows of similar length."""
        if context.only_last and records_layers:
            # Every layer's states are recorded at all positions.
            return context.needed(self.encode(inputs_embeds, context._replace(only_last=False)))
        encode = self.encode_last if context.only_last else self.encode
        states = encode_by_length(encode, inputs_embeds, context) if in_groups else encode(inputs_embeds, context)
        return states[:, None] if context.only_last else states

    def _batch_loss(
        self,
        hidden_states: Tensor,
        labels: Tensor,
        padding: RightPadded,
        num_items_in_batch: Tensor | int | None,
        negatives: Tensor | None,
        negatives_log_q: Tensor | None,
    ) -> Tensor:
        """Compute the loss of a batch's labelled positions; arguments as in `forward`."""
        labels = padding.gather(labels)
        if labels.dim() == 1:
            hidden_states = hidden_states[:, 0]
        else:
            self._check_labels(labels, padding.attention_mask)
        self._check_negatives(negatives, negatives_log_q)
        labelled = labels != -100
        if negatives is not None and negatives.dim() > labels.dim():
            negatives = padding.gather(negatives)[labelled]
            negatives_log_q = None if negatives_log_q is None else padding.gather(negatives_log_q)[labelled]
        return self.item_loss(
            hidden_states[labelled], labels[labelled], num_items_in_batch, negatives, negatives_log_q
        )

    def item_loss(
        self,
        hidden_states: Tensor,
        labels: Tensor,
        num_items_in_batch: Tensor | int | None = None,
        negatives: Tensor | None = None,
        negatives_log_q: Tensor | None = None,
    ) -> Tensor:
        """Compute `config.item_loss` of states `(m, d)`, right items `(m,)` and negatives `(m, n)` or `(n,)`."""
        return self.item_table.loss(
            hidden_states, labels, self.item_bias(), num_items_in_batch, negatives, negatives_log_q
        )

    @torch.no_grad()
    def rank_targets(self, query_states: Tensor, targets: Tensor, seen_items: Tensor) -> tuple[Tensor, Tensor]:
        r"""
        Rank each user's held-out item among the whole catalog, with the history excluded and with it, each `(b,)`.

        Args:
            query_states (`torch.Tensor` of shape `(b, d)`): The states after the histories: `last_hidden_state[:, 0]`
                of what `forward` returned with `only_last`, or for the batch of a [`RankingCollator`].
            targets (`torch.LongTensor` of shape `(b,)`): Row of the held-out item.
            seen_items (`torch.LongTensor` of shape `(b, s)`): Rows of the user's whole history, padded with 0.

        Raises:
            ValueError: if the shapes do not fit, or a score is NaN or infinite.
        """
        return self.item_table.target_ranks(query_states, targets, seen_items, self.item_bias())

    @torch.no_grad()
    def rank_among(self, query_states: Tensor, targets: Tensor, negatives: Tensor) -> Tensor:
        r"""
        Rank each user's held-out item among itself and its negatives `(b, n)`; otherwise as [`rank_targets`].

        Raises:
            ValueError: if the shapes do not fit, or a score is NaN or infinite.
        """
        return self.item_table.candidate_ranks(query_states, targets, negatives, self.item_bias())

    @torch.no_grad()
    def query_states(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, cache: HistoryCache | None = None
    ) -> Tensor:
        r"""
        Return the state `(b, d)` that predicts the item after each history; dropout is off whatever the model's mode.

        Args:
            input_ids (`torch.LongTensor` of shape `(b, l)`): Catalog rows, oldest first, padded with 0 on either
                side. A model with positions keeps the most recent `config.max_position_embeddings`.
            attention_mask (`torch.LongTensor` of shape `(b, l)`, *optional*): 1 at real positions.
            cache ([`HistoryCache`], *optional*): State to go on from; updated.

        Raises:
            ValueError: if a row is out of the catalog, or a history is empty.
            TypeError: if `input_ids` is no tensor of integers with two axes.
        """
        input_ids, attention_mask = self._checked_histories(input_ids, attention_mask)
        padding = right_padded(attention_mask)
        mask = padding.attention_mask
        rows = padding.gather(input_ids).masked_fill(mask == 0, 0)
        rows, mask = self._most_recent(rows, mask, self.config.max_position_embeddings)
        was_training = self.training
        self.eval()
        try:
            return self(rows, mask, cache=cache, output_logits=False, only_last=True).last_hidden_state[:, 0]
        finally:
            self.train(was_training)

    @torch.no_grad()
    def recommend(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        top_k: int = 10,
        exclude_seen: bool = True,
        candidate_rows: Tensor | None = None,
        cache: HistoryCache | None = None,
        cache_params: HistoryCache | None = None,
    ) -> tuple[Tensor, Tensor]:
        r"""
        Return catalog rows and scores, each `(b, top_k)`, of the best next items of each history, best first.

        The catalog is scored in chunks, so memory stays bounded. Dropout is off whatever the model's mode.

        Args:
            input_ids (`torch.LongTensor` of shape `(b, l)`): Catalog rows, oldest first, padded with 0 on either
                side. A model with positions keeps the most recent `config.max_position_embeddings`.
            attention_mask (`torch.LongTensor` of shape `(b, l)`, *optional*): 1 at real positions.
            top_k (`int`, *optional*, defaults to 10): How many items to return.
            exclude_seen (`bool`, *optional*, defaults to `True`): Leave out the items of `input_ids` (all of them,
                also those too old to be encoded). What went into `cache` earlier is not known here.
            candidate_rows (`torch.LongTensor` of shape `(c,)`, *optional*): Recommend only from these rows.
            cache ([`HistoryCache`], *optional*): State to go on from; updated.
            cache_params ([`HistoryCache`], *optional*): `cache`, by the name that it had before transformers 5.24.

        Raises:
            ValueError: if a row is out of the catalog, a history is empty, or fewer than `top_k` items are left.

        Example:

        ```python
        >>> rows, scores = model.recommend(torch.tensor([[12, 7, 431]]), top_k=10)
        ```
        """
        input_ids, attention_mask = self._checked_histories(input_ids, attention_mask)
        states = self.query_states(input_ids, attention_mask, _either_name(cache, cache_params))
        n_choices = self.config.n_items
        if candidate_rows is not None:
            self._check_rows("candidate_rows", candidate_rows, self.config.n_items + 1)
            # The padding row first, as in the whole catalog, so that it is masked here too.
            candidate_rows = torch.cat([candidate_rows.new_zeros(1), candidate_rows[candidate_rows > 0].unique()])
            n_choices = len(candidate_rows) - 1
        if top_k < 1 or top_k > n_choices:
            raise ValueError(f"`top_k` must be between 1 and the {n_choices} items to choose from, got {top_k}.")
        seen = input_ids.masked_fill(attention_mask == 0, 0) if exclude_seen else None
        rows, scores = self.item_table.top_k(states, top_k, self.item_bias(), seen, candidate_rows)
        if torch.isneginf(scores).any():
            user = int(torch.isneginf(scores).any(dim=1).nonzero()[0])
            left = int((~torch.isneginf(scores[user])).sum())
            raise ValueError(
                f"`top_k` must be at most the {left} items left to recommend to user {user}, got {top_k}. "
                "Lower `top_k` or pass `exclude_seen=False`."
            )
        return rows, scores

    @classmethod
    def from_pretrained(cls, *args: Any, revision: str = "main", **kwargs: Any) -> Any:
        """Load as [`PreTrainedModel.from_pretrained`], and remember the revision, of which the catalog must be too."""
        loaded = super().from_pretrained(*args, revision=revision, **kwargs)
        # With `output_loading_info` there is a report beside the model.
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        model.loaded_revision = revision
        return loaded

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Save weights, configuration and code, with an `auto_map` that AutoConfig and AutoModel both understand."""
        for part in (type(self), type(self.config)):
            part._auto_class = "AutoModel" if part is type(self) else "AutoConfig"
        super().save_pretrained(save_directory, *args, **kwargs)

    def push_to_hub(self, repo_id: str, **kwargs: Any) -> CommitInfo:  # type: ignore[override]  # by name, as there
        """
        Push weights, configuration, code, and the catalog and card of the checkpoint that the model came from.

        The arguments are those of [`~PreTrainedModel.push_to_hub`]; see `push_model`.
        """
        return push_model(self, repo_id, **kwargs)

    @staticmethod
    def _most_recent(input_ids: Tensor, attention_mask: Tensor, longest: int | None) -> tuple[Tensor, Tensor]:
        """Cut right-padded `(b, l)` histories to their `longest` most recent items; `None` keeps all."""
        if longest is None or input_ids.shape[1] <= longest:
            return input_ids, attention_mask
        lengths = attention_mask.sum(dim=1, keepdim=True)
        places = (lengths - longest).clamp(min=0) + torch.arange(longest, device=input_ids.device)
        return input_ids.gather(1, places), attention_mask.gather(1, places)

    @staticmethod
    def _check_not_empty(attention_mask: Tensor) -> None:
        if not torch.compiler.is_compiling() and not attention_mask.any(dim=1).all():
            empty = int((~attention_mask.any(dim=1)).nonzero()[0])
            raise ValueError(
                f"The history of user {empty} of the batch is empty, so there is nothing to recommend from. "
                "Leave such users out, or recommend the most popular items to them."
            )

    def _check_negatives(self, negatives: Tensor | None, negatives_log_q: Tensor | None) -> None:
        loss = self.config.item_loss
        if loss == "full_softmax" and negatives is not None:
            raise ValueError(
                "`negatives` must be left out with `config.item_loss='full_softmax'`, which compares with all items, "
                f"got shape {tuple(negatives.shape)}. Set `config.item_loss` to the loss that shall use them."
            )
        if loss != "full_softmax" and negatives is None and self.training:
            raise ValueError(
                f"`negatives` must be given to train with `config.item_loss={loss!r}`. "
                "`NegativesCollator` adds them to a batch; or set `config.item_loss` to 'full_softmax'."
            )
        if loss == "sampled_softmax" and negatives is not None and negatives_log_q is None:
            raise ValueError(
                "`negatives_log_q` must come with `negatives` for the sampled softmax: how probable each was to be "
                "drawn. `NegativesCollator(..., log_q=True)` adds it to a batch."
            )

    def _check_labels(self, labels: Tensor, attention_mask: Tensor) -> None:
        """Refuse labels that the model could only learn to copy; a causal model takes any."""

    def _check_input_ids(self, input_ids: Tensor) -> None:
        # On an accelerator the check would wait for the device at every step; there the data was checked when loaded.
        if input_ids.device.type == "cpu" and not torch.compiler.is_compiling():
            self._check_rows("input_ids", input_ids, self.config.vocab_size)
        longest = self.config.max_position_embeddings
        if longest is not None and input_ids.shape[1] > longest:
            raise ValueError(
                f"`input_ids` hold {input_ids.shape[1]} positions, but this model has {longest} "
                "(`config.max_position_embeddings`). Keep the most recent ones, as `recommend` and the collators do."
            )

    def _checked_histories(self, input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Refuse what are no histories of items, and return them with their mask."""
        if not isinstance(input_ids, Tensor) or input_ids.dim() != 2 or input_ids.is_floating_point():
            is_tensor = isinstance(input_ids, Tensor)
            found = f"shape {tuple(input_ids.shape)}, {input_ids.dtype}" if is_tensor else repr(input_ids)[:100]
            raise TypeError(
                f"`input_ids` must be a tensor of catalog rows (integers) of shape (b, l), one history a row, got "
                f"{found}. `torch.tensor([history])` makes one of a list; `Recommender` takes raw item ids."
            )
        self._check_rows("input_ids", input_ids, self.config.n_items + 1)
        return input_ids, (input_ids != 0).long() if attention_mask is None else attention_mask

    def _check_rows(self, name: str, rows: Tensor, n_rows: int) -> None:
        if rows.numel() == 0:
            raise ValueError(f"`{name}` is empty (shape {tuple(rows.shape)}). Pass at least one catalog row.")
        lowest, highest = (int(bound) for bound in rows.aminmax())
        if lowest < 0 or highest >= n_rows:
            raise ValueError(
                f"`{name}` must be catalog rows in 0..{n_rows - 1}, got {lowest}..{highest}. "
                "Translate raw item ids with `Catalog.encode`, and use the catalog that was saved with this model."
            )


def _either_name(cache: HistoryCache | None, cache_params: HistoryCache | None) -> HistoryCache | None:
    """Return the cache that was given by its name of today or by that from before transformers 5.24."""
    if cache is not None and cache_params is not None:
        raise ValueError("`cache` and `cache_params` are two names of one argument, got both. Pass `cache` only.")
    cache = cache_params if cache is None else cache
    # By what it has: a model loaded as remote code has a class of its own.
    if cache is not None and not hasattr(cache, "states"):
        raise TypeError(
            f"`cache` must be a `HistoryCache`, got {type(cache).__name__}. Pass the `cache` of an earlier output; "
            "the first call makes it with `use_cache=True`."
        )
    return cache
