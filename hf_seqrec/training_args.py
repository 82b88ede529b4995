"""How a model is trained and evaluated: transformers' TrainingArguments with what histories need."""

from dataclasses import dataclass, field

from transformers import TrainingArguments

from .data.windows import check_stride


@dataclass
class SeqRecTrainingArguments(TrainingArguments):
    r"""
    transformers' [`TrainingArguments`] with the defaults of sequential recommendation, and what histories need.

    One evaluation and one checkpoint an epoch, the best by validation NDCG@10 is kept and loaded at the end.
    """

    output_dir: str = field(
        default="runs/default", metadata={"help": "The run's folder: checkpoints, curves, results."}
    )
    max_length: int = field(
        default=200, metadata={"help": "Positions of a training or evaluation history; the most recent are kept."}
    )
    window: str = field(
        default="last",
        metadata={
            "help": "Which part of a longer history an epoch trains on: its most recent items (`last`), a window that "
            "starts anywhere, drawn anew each epoch (`random`), or all of it, in several windows (`sliding`).",
            "choices": ["last", "random", "sliding"],
        },
    )
    window_stride: int | None = field(
        default=None,
        metadata={"help": "`sliding`: events from one window to the next; by default `max_length`: no item twice."},
    )
    train_sampling_strategy: str = field(
        default="random",
        metadata={
            "help": "Order of an epoch: `random`, or `group_by_length`: histories of about the same length in a "
            "batch, which saves padding.",
            "choices": ["random", "group_by_length"],
        },
    )
    streaming: bool = field(
        default=False,
        metadata={
            "help": "Read training histories from disk or the Hub as they are needed, for those that do not fit into "
            "memory. Evaluation is in memory, on `streaming_eval_users`."
        },
    )
    streaming_buffer_size: int = field(
        default=50_000, metadata={"help": "`streaming`: windows held in memory to be shuffled together."}
    )
    streaming_eval_users: int = field(
        default=10_000, metadata={"help": "`streaming`: users, drawn at random, who are evaluated."}
    )
    early_stopping_patience: int | None = field(
        default=10, metadata={"help": "Evaluations without a better metric after which training stops; none: never."}
    )
    cpu_threads: int | None = field(
        default=None, metadata={"help": "Threads of a process on a CPU; by default all processors, shared out."}
    )
    overwrite_output_dir: bool = field(
        default=False, metadata={"help": "Delete what an earlier run left in `output_dir` and start again."}
    )

    learning_rate: float = field(default=1e-3, metadata={"help": "Highest learning rate."})
    num_train_epochs: float = field(default=100, metadata={"help": "Epochs, unless early stopping ends the run."})
    per_device_train_batch_size: int = field(default=64, metadata={"help": "Histories a step and device."})
    per_device_eval_batch_size: int = field(default=256, metadata={"help": "Histories an evaluation step and device."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate: `no`, `steps` or `epoch`."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save: `no`, `steps`, `epoch` or `best`."})
    logging_strategy: str = field(default="epoch", metadata={"help": "When to log: `no`, `steps` or `epoch`."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints kept, the best one included."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "End with the best checkpoint's weights."})
    metric_for_best_model: str | None = field(
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
        for name in ("streaming_buffer_size", "streaming_eval_users"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if self.early_stopping_patience is not None and self.early_stopping_patience < 1:
            raise ValueError(
                f"`early_stopping_patience` must be at least 1, got {self.early_stopping_patience}. "
                "Leave it out to train for all of `num_train_epochs`."
            )
        super().__post_init__()
        # Pinned memory is for copies to an accelerator; without one torch warns at every data loader.
        self.dataloader_pin_memory = self.dataloader_pin_memory and self.device.type != "cpu"
