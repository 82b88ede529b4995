"""Training and evaluation on transformers' Trainer: ranks instead of logits, and a stop where the loss breaks."""

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler
from transformers import EarlyStoppingCallback, EvalPrediction, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput

from ..data.catalog import CATALOG_FILE, Catalog, check_catalog_fits
from ..data.histories import HistoryDataset
from ..data.objectives import collators_for
from ..data.samplers import LengthGroupedSampler, ShuffledSampler
from ..data.streaming import StreamedHistories
from ..data.training_negatives import NegativesCollator
from ..data.windows import every_prefix, sliding_windows
from ..evaluation.protocol import model_inputs
from ..models.modeling_seqrec import SeqRecPreTrainedModel
from .embedding_optimizer import gradient_values, item_table_optimizer
from .launch_checks import check_ranks_agree
from .run_folder import LAST_FILE, newest_complete_checkpoint
from .run_record import check_same_data
from .sharded_embedding import check_optimizer_shards, shard_item_embedding
from .trainer_push import PushingTrainer
from .training_args import SeqRecTrainingArguments, seqrec_arguments


class SeqRecTrainer(PushingTrainer):
    r"""
    transformers' [`Trainer`] for sequential recommenders.

    Trains on what `model.config.objective` asks for, evaluates by `args.protocol`: by default full ranking, with the
    user's history excluded (`eval_ndcg@10`) and not (`eval_ndcg@10_with_seen`). Only one or two ranks a user leave the
    device, never the scores.

    Args:
        model ([`SeqRecPreTrainedModel`], *optional*): The model; or else `model_init` makes it.
        args ([`SeqRecTrainingArguments`], *optional*): How to train. Of plain [`TrainingArguments`] everything is
            taken, and the defaults of this package for what they do not have.
        train_dataset, eval_dataset:
            Views made by [`~hf_seqrec.data.leave_one_out.leave_one_out`] or
            [`~hf_seqrec.data.global_time_split.global_time_split`]; to train on also a
            [`~hf_seqrec.data.streaming.StreamedHistories`], with this process's batch size, window, rank and workers.
        catalog ([`Catalog`], *optional*): Saved with every checkpoint, so that it can name what it recommends.
        callbacks (`list[TrainerCallback]`, *optional*): More callbacks.
        model_init (`Callable[[], SeqRecPreTrainedModel]`, *optional*): Makes the model, anew for each call of `train`
            and each trial of a hyper-parameter search.
        compute_metrics (`Callable[[EvalPrediction], dict]`, *optional*): More metrics, beside those of the protocol,
            from `predictions`, which are the ranks of each user's target (one `(n,)` for each of `protocol.rankings`,
            0 the best), and `label_ids`, the targets' rows.
        kwargs: Other arguments of [`Trainer`].

    Raises:
        TypeError: if a dataset is something else than such a view.
        ValueError: if the catalog is not the model's, see [`check_catalog_fits`], or there is no model.
        PushError: with `args.push_to_hub`, if the Hub refuses to make the repository.
    """

    args: SeqRecTrainingArguments
    model: SeqRecPreTrainedModel

    def __init__(
        self,
        model: SeqRecPreTrainedModel | None = None,
        args: TrainingArguments | None = None,
        train_dataset: Dataset | None = None,
        eval_dataset: Dataset | None = None,
        catalog: Catalog | None = None,
        callbacks: list[TrainerCallback] | None = None,
        model_init: Callable[..., SeqRecPreTrainedModel] | None = None,
        compute_metrics: Callable[[EvalPrediction], dict[str, float]] | None = None,
        **kwargs: Any,
    ) -> None:
        args = seqrec_arguments(args)
        _check_views(train_dataset, eval_dataset)
        if args.push_to_hub and catalog is None:
            raise ValueError("`catalog` must be given with `push_to_hub`: others need it to name what is recommended.")
        self.catalog, self.more_metrics = catalog, compute_metrics
        if model_init is not None:
            model = self._first_model(model, model_init, args)
        if model is None:
            raise ValueError("`model` must be given, or `model_init`, a function that makes it.")
        # Of a sliding window the collators take all there is.
        window = "last" if args.window == "sliding" else args.window
        self.collators = collators_for(model.config, args.max_length, window, args.seed, args.train_on)
        # What the collators were made for, which a trial of a search cannot change any more.
        self._objective = None if train_dataset is None else args.objective()
        self._configure(model, args)
        if train_dataset is not None:
            if args.loss != "full_softmax":
                self.collators = self.collators._replace(training=self._with_negatives(model, args, train_dataset))
            if args.embedding_optimizer is not None:
                _check_sparse_gradients_travel(args)
                kwargs["optimizer_cls_and_kwargs"] = item_table_optimizer(model, args, args.embedding_learning_rate)
        self.protocol = args.protocol
        self._rank_by_protocol(model.config.n_items, train_dataset, eval_dataset)
        if args.train_on == "every_prefix" and isinstance(train_dataset, HistoryDataset):
            train_dataset = every_prefix(train_dataset, args.max_length)
        if args.window == "sliding" and isinstance(train_dataset, HistoryDataset):
            train_dataset = sliding_windows(train_dataset, args.max_length, args.window_stride)
        self.shards = shard_item_embedding(model) if args.shard_embeddings and train_dataset is not None else None
        callbacks = list(callbacks or [])
        if args.early_stopping_patience is not None and args.eval_strategy != "no":
            callbacks.append(EarlyStoppingCallback(args.early_stopping_patience))
        super().__init__(
            model=model,
            args=args,
            data_collator=self.collators.training,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            compute_metrics=self._metrics,
            callbacks=callbacks,
            **kwargs,
        )
        self.model_init: Any = model_init
        # Trainer's own would take the labels away from the model and ask it for all logits.
        self.label_smoother = None
        self.resumed_from: str | bool | None = None
        # Positions of a training history, where histories are grouped by length and learn at every position.
        self.mean_positions: float | None = None

    def _first_model(
        self,
        model: SeqRecPreTrainedModel | None,
        model_init: Callable[..., SeqRecPreTrainedModel],
        args: SeqRecTrainingArguments,
    ) -> SeqRecPreTrainedModel:
        """Make the model from which what does not change between trials is taken: the objective, the catalog."""
        if model is not None:
            raise ValueError("`model` must be left out with `model_init`, which makes it.")
        for name in ("embedding_optimizer", "shard_embeddings"):
            if getattr(args, name):
                raise ValueError(
                    f"`model_init` must come without `{name}`, which belongs to the tables of one model. Pass `model`."
                )
        self.model_init = model_init
        set_seed(args.seed)
        made: Any = super().call_model_init()
        return made

    def call_model_init(self, trial: Any = None) -> SeqRecPreTrainedModel:
        """Make a model with `model_init`, and note in its configuration what it is trained for."""
        model: Any = super().call_model_init(trial)
        if self._objective is not None and self.args.objective() != self._objective:
            raise ValueError(
                f"`{'`, `'.join(self._objective)}` must stay as they were when the Trainer was made "
                f"({self._objective}), got {self.args.objective()}. Make a Trainer for each of them."
            )
        self._configure(model, self.args)
        return model

    def _configure(self, model: SeqRecPreTrainedModel, args: SeqRecTrainingArguments) -> None:
        """Note in the configuration of a model what it is trained with, and the catalog that it knows."""
        if self.catalog is not None:
            check_catalog_fits(model.config, self.catalog)
            model.config.catalog_fingerprint = self.catalog.fingerprint()
        if self._objective is not None:
            model.config.item_loss, model.config.gbce_t = args.loss, args.gbce_t
            model.config.num_negatives, model.config.constant_bias = args.num_negatives, args.constant_bias
            model.config.label_smoothing = args.label_smoothing_factor

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train as [`Trainer.train`], once the ranks have found that they have the same data to train on."""
        self.resumed_from = _name(resume_from_checkpoint)
        self._check_catalog_of(resume_from_checkpoint)
        if self.args.world_size > 1:
            check_ranks_agree(self._what_is_trained_on() | {"checkpoint": self.resumed_from})
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _check_catalog_of(self, resume_from_checkpoint: str | bool | None) -> None:
        """Refuse to go on from weights whose rows stand for other items."""
        folder: Any = resume_from_checkpoint
        if folder is True:
            folder = newest_complete_checkpoint(Path(str(self.args.output_dir)))
        if folder and self.catalog is not None and Path(folder, CATALOG_FILE).is_file():
            found = {"items": self.catalog.n_items, "catalog": self.catalog.fingerprint()}
            saved = Catalog.from_pretrained(folder)
            check_same_data(folder, {"items": saved.n_items, "catalog": saved.fingerprint()}, found)

    def _what_is_trained_on(self) -> dict[str, Any]:
        """Return numbers and hashes of the items and histories; the hash of a billion events takes some seconds."""
        found: dict[str, Any] = {"items": self.model.config.n_items}
        if self.catalog is not None:
            found["hash of the item ids"] = self.catalog.fingerprint()
        for what, dataset in (("training", self.train_dataset), ("evaluation", self.eval_dataset)):
            if isinstance(dataset, HistoryDataset | StreamedHistories):
                found[f"hash of the {what} histories"] = dataset.fingerprint()
            if isinstance(dataset, StreamedHistories):
                found |= {f"{what} samples": dataset.n_windows, f"{what} batches": dataset.n_batches.tolist()}
            elif isinstance(dataset, HistoryDataset):
                found[f"{what} samples"] = len(dataset)
        return found

    def _rank_by_protocol(self, n_items: int, train_dataset: Any, eval_dataset: Any) -> None:
        """Give the evaluation batches the negatives of the protocol, if it has some, and see that there are enough."""
        counts = None
        if self.protocol.needs_counts:
            if train_dataset is None:
                raise ValueError(
                    "`train_dataset` must be given to draw `eval_negatives` by popularity, which is counted on it."
                )
            counts = train_dataset.item_counts()
        if isinstance(eval_dataset, HistoryDataset):
            self.protocol.check(eval_dataset, n_items, counts)
        ranking = self.protocol.collator(self.collators.ranking, n_items, counts)
        self.collators = self.collators._replace(ranking=ranking)

    def _with_negatives(
        self, model: SeqRecPreTrainedModel, args: SeqRecTrainingArguments, train_dataset: Any
    ) -> NegativesCollator:
        """Add to the training batches the negatives that the loss compares with."""
        assert args.num_negatives is not None  # the arguments have chosen a number
        return NegativesCollator(
            self.collators.training,
            model.config.n_items,
            args.num_negatives,
            args.negatives_distribution,
            # Before the histories are cut into samples, in which an event is more than once.
            item_counts=None if args.negatives_distribution == "uniform" else train_dataset.item_counts(),
            alpha=args.negatives_alpha,
            shared=args.share_negatives,
            log_q=args.loss == "sampled_softmax",
            seed=args.seed,
        )

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        """Order by (seed, epoch) alone, so that every rank and a resumed run see the same order and windows."""
        dataset = self.train_dataset if train_dataset is None else train_dataset
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        if self.args.train_sampling_strategy == "group_by_length":
            # Batches next to each other go to different ranks in the same step.
            batch_size = self.args.train_batch_size * self.args.world_size
            sampler = LengthGroupedSampler(dataset, batch_size, self.args.max_length, seed)
            if self.args.train_on in (None, "every_position") and self.model.config.objective != "last_item":
                # The last event of a history is no input.
                self.mean_positions = float(sampler.lengths.mean()) - 1
            return sampler
        return ShuffledSampler(dataset, seed)

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int] | None:
        """Rank users in the order of the dataset; Trainer's would be grouped by length where training is."""
        return SequentialSampler(eval_dataset)

    def get_train_dataloader(self) -> DataLoader:
        """Let a stream make its batches itself: it has shared itself out among processes and workers."""
        if not isinstance(self.train_dataset, StreamedHistories):
            return super().get_train_dataloader()
        loader: DataLoader = DataLoader(
            self.train_dataset,
            batch_size=None,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
            multiprocessing_context=self.args.dataloader_multiprocessing_context,
            prefetch_factor=self.args.dataloader_prefetch_factor,
        )
        # As one of one process, or Accelerate would share out again what is this process's share.
        return prepare_data_loader(
            loader, self.args.device, num_processes=1, process_index=0, put_on_device=True, dispatch_batches=False
        )

    def num_examples(self, dataloader: DataLoader) -> int:
        """Count windows, also where the data loader counts batches."""
        dataset = dataloader.dataset
        return dataset.n_windows if isinstance(dataset, StreamedHistories) else super().num_examples(dataloader)

    def get_eval_dataloader(self, eval_dataset: str | Dataset | None = None) -> DataLoader:
        """Batch histories with their held-out item instead of those to learn from."""
        with self._ranking_batches():
            return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Dataset) -> DataLoader:
        """Batch histories with their held-out item instead of those to learn from."""
        with self._ranking_batches():
            return super().get_test_dataloader(test_dataset)

    @contextmanager
    def _ranking_batches(self) -> Iterator[None]:
        training_collator = self.data_collator
        self.data_collator = self.collators.ranking
        try:
            yield
        finally:
            self.data_collator = training_collator

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Any, Tensor | None]:
        """Return the loss, the ranks of each user's held-out item, and the item: `(b,)` each, nothing `(b, v)`."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            output = model(**model_inputs(inputs))
            if prediction_loss_only:
                return output.loss.detach(), None, None
            states = output.last_hidden_state[:, 0]
            ranks = self.protocol.ranks(self.accelerator.unwrap_model(model), states, inputs)
        return output.loss.detach(), ranks, inputs["targets"]

    def _metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        """Turn the ranks of all users into metrics."""
        ranks: Any = prediction.predictions
        more = {} if self.more_metrics is None else self.more_metrics(prediction)
        return self.protocol.metrics(ranks) | more

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Train on one batch, and stop where the loss is no longer a number."""
        loss = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"The training loss is {loss.item()} at step {self.state.global_step + 1} (epoch "
                f"{self.state.epoch:.2f}) with learning rate {self._get_learning_rate():.3g}. Lower `--learning_rate` "
                f"or `--max_grad_norm` (now {self.args.max_grad_norm}) and start again in a new `--output_dir`, from "
                f"the last checkpoint in {self.args.output_dir} if you pass it as `--model_name_or_path`."
            )
        return loss

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor | int | None:
        """
        Count labels as [`Trainer`] does; of histories grouped by length, as many as if their lengths were average.

        A mean over each batch would weigh a position of a batch of short histories more than one of long histories.
        """
        count = super()._get_num_items_in_batch(batch_samples, device)
        if count is None or self.mean_positions is None:
            return count
        sizes = torch.tensor(
            [[len(batch["input_ids"]), int(batch["attention_mask"].sum())] for batch in batch_samples], device=device
        )
        if self.args.average_tokens_across_devices and self.args.world_size > 1:
            sizes = self.accelerator.gather(sizes)
        n_histories, n_positions = sizes.sum(dim=0)
        return count * (self.mean_positions * n_histories / n_positions)

    # torch knows no norm of a sparse gradient, so what is measured and clipped are its values.
    def _clip_grad_norm(self, model: nn.Module) -> Any:
        if self.shards is not None:
            return self.shards.clip_grad_norm(model, self.args.max_grad_norm)
        return super()._clip_grad_norm(gradient_values(model))

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        if self.shards is not None and grad_norm is None:
            return self.shards.clip_grad_norm(model, math.inf)
        return super()._get_grad_norm(gradient_values(model) if grad_norm is None else model, grad_norm=grad_norm)

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Leave out of weight decay what a layer lists in `no_weight_decay`: Mamba's `A_log` and `D`."""
        exempt = {
            f"{name}.{parameter}" for name, layer in model.named_modules() for parameter in _no_weight_decay(layer)
        }
        return [name for name in super().get_decay_parameter_names(model) if name not in exempt]

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint; where there is one of this step, it is not complete until it is written anew."""
        if self.args.should_save:
            name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
            Path(self._get_output_dir(trial=trial), name, LAST_FILE).unlink(missing_ok=True)
        super()._save_checkpoint(model, trial)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Write the state of the optimizer; where ranks have rows of their own, that of each rank."""
        super()._save_optimizer_and_scheduler(output_dir)
        if self.shards is not None:
            assert self.optimizer is not None
            os.makedirs(output_dir, exist_ok=True)
            torch.save(self.optimizer.state_dict(), os.path.join(output_dir, self.shards.optimizer_file))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load the state of the optimizer; where ranks have rows of their own, that of this rank."""
        if checkpoint is not None:
            check_optimizer_shards(checkpoint, self.shards)
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and self.shards is not None:
            assert self.optimizer is not None
            file = os.path.join(checkpoint, self.shards.optimizer_file)
            self.optimizer.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))

    def _save_rng_state(self, output_dir: str) -> None:
        """Write the random state of this rank, and wait for the others': the trainer's state comes last of all."""
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Write a checkpoint folder: weights, configuration, code, catalog, arguments as JSON; no pickle."""
        # Of all ranks, before those leave that do not write.
        table = None if self.shards is None else self.shards.whole_table()
        if not self.args.should_save:
            return
        output_dir = output_dir or self.args.output_dir
        os.makedirs(output_dir, exist_ok=True)
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        if table is not None:
            state_dict = model.state_dict() | {"item_embeddings.weight": table}
        model.save_pretrained(output_dir, state_dict=state_dict)
        if self.catalog is not None:
            self.catalog.save(output_dir)
        with open(os.path.join(output_dir, "training_args.json"), "w", encoding="utf-8") as file:
            json.dump(self.args.to_dict(), file, indent=2, sort_keys=True)


def _name(checkpoint: str | bool | None) -> str | bool | None:
    return os.path.basename(checkpoint) if isinstance(checkpoint, str) else checkpoint


def _check_sparse_gradients_travel(args: SeqRecTrainingArguments) -> None:
    """Raise where processes cannot add up sparse gradients."""
    if args.world_size > 1 and torch.distributed.get_backend() != "gloo":
        raise ValueError(
            f"`embedding_optimizer` {args.embedding_optimizer!r} must come with gloo between {args.world_size} "
            f"processes, got {torch.distributed.get_backend()}, which adds up no sparse gradients. Pass "
            "`--ddp_backend gloo`, or train in one process."
        )


def _check_views(train_dataset: Any, eval_dataset: Any) -> None:
    """Refuse datasets that know no histories."""
    parts = eval_dataset.values() if isinstance(eval_dataset, dict) else [eval_dataset]
    for name, dataset, kinds in (
        ("train_dataset", train_dataset, (HistoryDataset, StreamedHistories)),
        *(("eval_dataset", part, (HistoryDataset,)) for part in parts),
    ):
        if dataset is not None and not isinstance(dataset, kinds):
            raise TypeError(
                f"`{name}` must be a view of histories, such as `leave_one_out(folder).train` with the folder of a "
                f"dataset that `hf-seqrec build` wrote, got a {type(dataset).__module__}.{type(dataset).__name__}."
            )


def _no_weight_decay(layer: nn.Module) -> tuple[str, ...]:
    return getattr(layer, "no_weight_decay", ())
