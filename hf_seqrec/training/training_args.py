"""How a model is trained and evaluated: transformers' TrainingArguments with what histories need."""

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import torch
from transformers import TrainingArguments

from ..data.objectives import TRAIN_ON
from ..data.training_negatives import NEGATIVES_DISTRIBUTIONS, check_negatives
from ..data.windows import check_stride
from ..evaluation.protocol import RankingArguments
from ..hub.upload import check_repo_id
from ..models.configuration_seqrec import DEFAULT_NEGATIVES
from .embedding_optimizer import EMBEDDING_OPTIMIZERS
from .run_record import OnResume


@dataclass
class SeqRecTrainingArguments(RankingArguments, TrainingArguments):
    r"""
    transformers' [`TrainingArguments`] with the defaults of sequential recommendation, and what histories need.

    One evaluation and one checkpoint an epoch, the best by validation NDCG@10 is kept and loaded at the end.
    """

    output_dir: str = field(
        default="runs/default", metadata={"help": "The run's folder: checkpoints, curves, results."}
    )
    max_length: Annotated[int, OnResume.SAME] = field(
        default=200, metadata={"help": "Positions of a training or evaluation history; the most recent are kept."}
    )
    window: Annotated[str, OnResume.SAME] = field(
        default="last",
        metadata={
            "help": "Which part of a longer history an epoch trains on: its most recent items (`last`), a window that "
            "starts anywhere, drawn anew each epoch (`random`), or all of it, in several windows (`sliding`).",
            "choices": ["last", "random", "sliding"],
        },
    )
    window_stride: Annotated[int | None, OnResume.SAME] = field(
        default=None,
        metadata={"help": "`sliding`: events from one window to the next; by default `max_length`: no item twice."},
    )
    train_on: Annotated[str | None, OnResume.SAME] = field(
        default=None,
        metadata={
            "help": "Where in a history the next item is learned: at every position, only at the last one, or at the "
            "last one of every prefix, each a sample of its own. By default at every position where a model can "
            "(BERT4Rec fills in masks).",
            "choices": list(TRAIN_ON),
        },
    )
    loss: Annotated[str, OnResume.SAME] = field(
        default="full_softmax",
        metadata={
            "help": "Compare the right item with the whole catalog, or with sampled negatives.",
            "choices": list(DEFAULT_NEGATIVES),
        },
    )
    num_negatives: Annotated[int | None, OnResume.SAME] = field(
        default=None,
        metadata={
            "help": "Negatives of each position. By default "
            + ", ".join(f"{number} ({loss})" for loss, number in DEFAULT_NEGATIVES.items() if number)
            + "."
        },
    )
    negatives_distribution: Annotated[str, OnResume.SAME] = field(
        default="uniform",
        metadata={
            "help": "How negatives are drawn: all items alike, by popularity, from the labels of the batch, or half "
            "uniform and half from the batch.",
            "choices": list(NEGATIVES_DISTRIBUTIONS),
        },
    )
    # As word2vec draws its negatives (https://arxiv.org/abs/1310.4546, Section 2.2).
    negatives_alpha: Annotated[float, OnResume.SAME] = field(
        default=0.75,
        metadata={"help": "`popularity`: power of the counts that items are drawn in proportion to."},
    )
    share_negatives: Annotated[bool | None, OnResume.SAME] = field(
        default=None,
        metadata={"help": "Same negatives for all positions of a batch. By default where there are more than 16."},
    )
    gbce_t: Annotated[float, OnResume.SAME] = field(
        default=0.75, metadata={"help": "`gbce`: how far overconfidence is corrected, from 0 (`bce`) to 1."}
    )
    constant_bias: Annotated[bool, OnResume.SAME] = field(
        default=True,
        metadata={
            "help": "`bce`, `gbce`: add a constant to all scores, so that the right item weighs as much as all its "
            "negatives at first. `false` is the loss as published."
        },
    )
    embedding_optimizer: Annotated[str | None, OnResume.SAME] = field(
        default=None,
        metadata={
            "help": "Optimizer of the item embedding, where it shall be another than `--optim`, which is of all "
            "parameters by default. `rowwise_adagrad`, for large catalogs, keeps one number a row and touches only a "
            "batch's rows; it takes a `--loss` that samples.",
            "choices": list(EMBEDDING_OPTIMIZERS),
        },
    )
    embedding_learning_rate: Annotated[float, OnResume.SAME] = field(
        default=0.1, metadata={"help": "`embedding_optimizer`: highest learning rate of the item embedding."}
    )
    shard_embeddings: bool = field(
        default=False,
        metadata={
            "help": "Share the rows of the item embedding, of its gradient and of its optimizer's state out among the "
            "processes, for tables that do not fit on one. For the full softmax, and models that score with their "
            "item embedding alone (all but BERT4Rec)."
        },
    )
    train_sampling_strategy: Annotated[str, OnResume.SAME] = field(
        default="random",
        metadata={
            "help": "Order of an epoch: `random`, or `group_by_length`: histories of about the same length in a "
            "batch, which saves padding.",
            "choices": ["random", "group_by_length"],
        },
    )
    streaming: Annotated[bool, OnResume.SAME] = field(
        default=False,
        metadata={
            "help": "Read training histories from disk or the Hub as they are needed, for those that do not fit into "
            "memory. Evaluation is in memory, on `streaming_eval_users`."
        },
    )
    streaming_buffer_size: Annotated[int, OnResume.SAME] = field(
        default=50_000, metadata={"help": "`streaming`: windows held in memory to be shuffled together."}
    )
    streaming_eval_users: Annotated[int, OnResume.SAME] = field(
        default=10_000, metadata={"help": "`streaming`: users, drawn at random, who are evaluated."}
    )
    early_stopping_patience: Annotated[int | None, OnResume.RECORDED] = field(
        default=10, metadata={"help": "Evaluations without a better metric after which training stops; none: never."}
    )
    cpu_threads: int | None = field(
        default=None, metadata={"help": "Threads of a process on a CPU; by default all processors, shared out."}
    )
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Delete what an earlier run left in `output_dir` and start again."}
    )

    learning_rate: Annotated[float, OnResume.SAME] = field(default=1e-3, metadata={"help": "Highest learning rate."})
    num_train_epochs: Annotated[float, OnResume.RECORDED] = field(
        default=100, metadata={"help": "Epochs, unless early stopping ends the run."}
    )
    per_device_train_batch_size: Annotated[int, OnResume.RECORDED] = field(
        default=64, metadata={"help": "Histories a step and device."}
    )
    per_device_eval_batch_size: int = field(default=256, metadata={"help": "Histories an evaluation step and device."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate: `no`, `steps` or `epoch`."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save: `no`, `steps`, `epoch` or `best`."})
    seed: Annotated[int, OnResume.SAME] = field(
        default=42,
        metadata={"help": "Seed of the weights, of what training draws, and of the order of the data."},
    )
    data_seed: Annotated[int | None, OnResume.SAME] = field(
        default=None, metadata={"help": "Seed of the order of the data; by default `seed`."}
    )
    optim: Annotated[str, OnResume.SAME] = field(
        default=TrainingArguments.optim, metadata={"help": "Optimizer, one of transformers' `OptimizerNames`."}
    )
    optim_args: Annotated[str | None, OnResume.SAME] = field(
        default=None, metadata={"help": "More arguments of the optimizer, as `name=value, name=value`."}
    )
    # torch keeps these in the optimizer's and the scheduler's state, and takes them from there again.
    weight_decay: Annotated[float, OnResume.SAME] = field(default=0.0, metadata={"help": "Weight decay of AdamW."})
    adam_beta1: Annotated[float, OnResume.SAME] = field(default=0.9, metadata={"help": "First beta of Adam."})
    adam_beta2: Annotated[float, OnResume.SAME] = field(default=0.999, metadata={"help": "Second beta of Adam."})
    adam_epsilon: Annotated[float, OnResume.SAME] = field(default=1e-8, metadata={"help": "Epsilon of Adam."})
    lr_scheduler_type: Annotated[str, OnResume.SAME] = field(
        default="linear", metadata={"help": "How the learning rate falls, one of transformers' `SchedulerType`."}
    )
    lr_scheduler_kwargs: Annotated[dict[str, Any] | str | None, OnResume.SAME] = field(
        default=None, metadata={"help": "More arguments of the schedule, as JSON."}
    )
    warmup_steps: Annotated[float, OnResume.SAME] = field(
        default=0, metadata={"help": "Steps, or below 1 the share of all steps, in which the learning rate rises."}
    )
    max_grad_norm: Annotated[float, OnResume.RECORDED] = field(
        default=1.0, metadata={"help": "Norm to which a step's gradient is clipped."}
    )
    label_smoothing_factor: Annotated[float, OnResume.SAME] = field(
        default=0.0, metadata={"help": "`full_softmax`: share of each target that is spread over all items."}
    )
    max_steps: Annotated[int, OnResume.RECORDED] = field(
        default=-1, metadata={"help": "Steps, instead of `num_train_epochs`, where above 0."}
    )
    gradient_accumulation_steps: Annotated[int, OnResume.RECORDED] = field(
        default=1, metadata={"help": "Batches that are added up for a step."}
    )
    bf16: Annotated[bool, OnResume.RECORDED] = field(
        default=False, metadata={"help": "Compute in bfloat16 where it is safe; the weights stay in float32."}
    )
    fp16: Annotated[bool, OnResume.RECORDED] = field(
        default=False, metadata={"help": "Compute in float16 where it is safe; the weights stay in float32."}
    )
    logging_strategy: str = field(default="epoch", metadata={"help": "When to log: `no`, `steps` or `epoch`."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints kept, the best one included."})
    load_best_model_at_end: Annotated[bool, OnResume.RECORDED] = field(
        default=True, metadata={"help": "End with the best checkpoint's weights."}
    )
    metric_for_best_model: Annotated[str | None, OnResume.SAME] = field(
        default="ndcg@10", metadata={"help": "What makes a checkpoint the best."}
    )
    # Trainer's filter would replace a NaN by the running mean and train on; ours stops (SeqRecTrainer.training_step).
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "Hide broken losses in the logs."})
    # Trainer would otherwise look for columns to remove, and our batches are no lists of dictionaries.
    remove_unused_columns: bool = field(default=False, metadata={"help": "Not used: batches have no other columns."})
    label_names: list[str] | None = field(
        default_factory=lambda: ["labels"], metadata={"help": "Batch keys that hold labels."}
    )

    def __post_init__(self) -> None:
        if self.max_length < 1:
            raise ValueError(f"`max_length` must be at least 1, got {self.max_length}.")
        if self.window not in ("last", "random", "sliding"):
            raise ValueError(f"`window` must be 'last', 'random' or 'sliding', got {self.window!r}.")
        if self.window_stride is not None:
            if self.window != "sliding":
                raise ValueError(f"`window_stride` must come with `--window sliding`, got {self.window!r}.")
            check_stride(self.window_stride, self.max_length)
        if self.train_sampling_strategy not in ("random", "group_by_length"):
            raise ValueError(
                f"`train_sampling_strategy` must be 'random' or 'group_by_length', got "
                f"{self.train_sampling_strategy!r}."
            )
        if self.streaming and self.train_sampling_strategy != "random":
            raise ValueError(
                f"`train_sampling_strategy` must be 'random' with `streaming`, got {self.train_sampling_strategy!r}: "
                "to group all histories by length, they would have to be in memory."
            )
        if self.train_on == "every_prefix" and (self.window != "last" or self.streaming):
            raise ValueError(
                "`train_on` must not be 'every_prefix' with `streaming` or another `window` than 'last', got "
                f"window {self.window!r}: prefixes take all of a history, and only one in memory."
            )
        self._check_loss()
        self._check_embedding_optimizer()
        self._check_shard_embeddings()
        self._check_protocol()
        for name in ("streaming_buffer_size", "streaming_eval_users"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if self.early_stopping_patience is not None and self.early_stopping_patience < 1:
            raise ValueError(
                f"`early_stopping_patience` must be at least 1, got {self.early_stopping_patience}. "
                "Leave it out to train for all of `num_train_epochs`."
            )
        if self.push_to_hub:
            check_repo_id(self.hub_model_id or Path(self.output_dir).absolute().name, "hub_model_id")
        # Without an accelerator Accelerate joins processes only if it is told that they shall use the CPU: they would
        # each train on everything, in the same folder.
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        super().__post_init__()
        # Pinned memory is for copies to an accelerator; without one torch warns at every data loader.
        self.dataloader_pin_memory = self.dataloader_pin_memory and self.device.type != "cpu"

    def objective(self) -> dict[str, Any]:
        """Return the loss, what it compares with and where it is asked for, as far as they were chosen."""
        names = ["loss", "train_on"]
        if self.loss != "full_softmax":
            names += ["num_negatives", "negatives_distribution", "share_negatives"]
            names += ["negatives_alpha"] if self.negatives_distribution == "popularity" else []
            names += ["gbce_t"] if self.loss == "gbce" else []
            names += ["constant_bias"] if self.loss in ("bce", "gbce") and not self.constant_bias else []
        names += ["label_smoothing_factor"] if self.label_smoothing_factor else []
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def _check_protocol(self) -> None:
        """Check the protocol, and choose the best checkpoint by a metric that it has."""
        suffix = next(iter(self.protocol.rankings))
        if self.metric_for_best_model == type(self).metric_for_best_model:
            self.metric_for_best_model = f"{self.metric_for_best_model}{suffix}"

    def _check_embedding_optimizer(self) -> None:
        name = self.embedding_optimizer
        if name is None:
            return
        if name not in EMBEDDING_OPTIMIZERS:
            raise ValueError(f"`embedding_optimizer` must be {' or '.join(EMBEDDING_OPTIMIZERS)}, got {name!r}.")
        if not self.embedding_learning_rate > 0:
            raise ValueError(f"`embedding_learning_rate` must be above 0, got {self.embedding_learning_rate}.")
        if self.loss == "full_softmax":
            raise ValueError(
                f"`embedding_optimizer` {name!r} must come with a `--loss` that samples, got {self.loss!r}: its "
                "gradient touches every item, so nothing is saved. Take `--loss sampled_softmax`, or leave it out."
            )
        for option in ("fsdp", "deepspeed"):
            if getattr(self, option):
                raise ValueError(
                    f"`embedding_optimizer` {name!r} must come without `{option}`, which knows no sparse gradients. "
                    "Leave one of the two out."
                )

    def _check_shard_embeddings(self) -> None:
        if not self.shard_embeddings:
            return
        asked = {
            f"--loss {self.loss}": self.loss != "full_softmax",
            "--label_smoothing_factor": self.label_smoothing_factor,
            f"--eval_protocol {self.eval_protocol}": self.eval_protocol != "full",
            "--fsdp": self.fsdp,
            "--deepspeed": self.deepspeed,
            "--torch_compile": self.torch_compile,
        }
        refused = [option for option, is_asked in asked.items() if is_asked]
        if refused:
            raise ValueError(
                f"`shard_embeddings` must come without {', '.join(refused)}: with a table shared out among processes "
                "there is the full softmax and the full ranking. Leave one of the two out."
            )

    def _check_loss(self) -> None:
        """Check the loss and its negatives, and how many they are by default."""
        if self.loss not in DEFAULT_NEGATIVES:
            raise ValueError(f"`loss` must be one of {', '.join(DEFAULT_NEGATIVES)}, got {self.loss!r}.")
        if not 0.0 <= self.label_smoothing_factor <= 1.0:
            raise ValueError(f"`label_smoothing_factor` must be in [0, 1], got {self.label_smoothing_factor}.")
        if self.label_smoothing_factor and self.loss != "full_softmax":
            raise ValueError(
                f"`label_smoothing_factor` must come with `--loss full_softmax`, got {self.loss!r}: the other losses "
                "do not know all items."
            )
        if self.loss == "full_softmax":
            given = {"num_negatives": self.num_negatives, "share_negatives": self.share_negatives}
            asked = [name for name, value in given.items() if value is not None]
            asked += ["negatives_distribution"] if self.negatives_distribution != "uniform" else []
            if asked:
                raise ValueError(f"`{'`, `'.join(asked)}` must come with a `--loss` that samples, got {self.loss!r}.")
            return
        if self.num_negatives is None:
            self.num_negatives = DEFAULT_NEGATIVES[self.loss]
        assert self.num_negatives is not None  # only the full softmax has none
        check_negatives(self.num_negatives, self.negatives_distribution)
        if not self.negatives_alpha >= 0:
            raise ValueError(f"`negatives_alpha` must be at least 0, got {self.negatives_alpha}.")
        if not 0.0 <= self.gbce_t <= 1.0:
            raise ValueError(f"`gbce_t` must be in [0, 1], got {self.gbce_t}.")


def seqrec_arguments(args: TrainingArguments | None) -> SeqRecTrainingArguments:
    """Return arguments as they are, or plain [`TrainingArguments`] with this package's defaults for what they lack."""
    if args is None:
        return SeqRecTrainingArguments()
    if isinstance(args, SeqRecTrainingArguments):
        return args
    given = {field.name: getattr(args, field.name) for field in fields(TrainingArguments) if field.init}
    # What cannot be otherwise here, and what plain arguments leave open.
    ours = ["remove_unused_columns", "label_names", "logging_nan_inf_filter"]
    ours += ["metric_for_best_model"] if args.metric_for_best_model is None else []
    given = {name: value for name, value in given.items() if name not in ours}
    return SeqRecTrainingArguments(**given, early_stopping_patience=None)
