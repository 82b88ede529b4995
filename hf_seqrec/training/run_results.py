"""What a run leaves at its end: the results, and how they were made."""

from pathlib import Path
from typing import Any

from ..data.sequences import Sequences
from ..data.splits import Splits
from ..evaluation.environment import commit, hardware, own_command, versions
from ..evaluation.results import RESULTS_FILE, Results, dataset_name, without_folders, write_results
from .run_arguments import RunArguments
from .run_record import read_run
from .trainer import SeqRecTrainer


def write_run_results(
    output_dir: str,
    trainer: SeqRecTrainer,
    arguments: RunArguments,
    sequences: Sequences,
    splits: Splits,
    metrics: dict[str, float],
    baselines: dict[str, dict[str, float]],
) -> Results:
    r"""
    Write and return `results.json`: every metric of validation and test, and what it takes to obtain them again.

    Args:
        output_dir (`str`): The run's folder.
        trainer ([`SeqRecTrainer`]): After training.
        arguments ([`RunArguments`]): What was asked for.
        sequences ([`Sequences`]): What was trained on.
        splits: What of it was held out, as [`~hf_seqrec.training.run_data.load_run_data`] returns it.
        metrics (`dict[str, float]`): `eval_...` of validation and `test_...`.
        baselines (`dict[str, dict[str, float]]`): The metrics of each baseline, in the same way.
    """
    history, args = trainer.state.log_history, arguments.training
    identity = arguments.run_identity()
    told = identity.same | identity.recorded
    results: Results = {
        "model_type": trainer.model.config.model_type,
        "dataset": dataset_name(arguments.data.dataset),
        "statistics": sequences.statistics,
        "protocol": f"{splits.protocol}, {trainer.protocol.description}",
        "rankings": trainer.protocol.rankings,
        "split_counts": splits.counts,
        "metrics": {name: value for name, value in sorted(metrics.items()) if "@" in name or name.endswith("_loss")},
        "baselines": baselines,
        "max_length": args.max_length,
        "best_step": trainer.state.best_global_step,
        "epochs": trainer.state.epoch,
        # A run that went on from a checkpoint knows only the time since.
        "resumed_from": trainer.resumed_from,
        "changed_on_resume": (read_run(output_dir) or {}).get("changes", []),
        "train_seconds": next((entry["train_runtime"] for entry in history if "train_runtime" in entry), None),
        "evaluation_seconds": sum(metrics[name] for name in ("eval_runtime", "test_runtime") if name in metrics),
        "optimizer": _text(args.optim),
        "learning_rate": args.learning_rate,
        "lr_scheduler": _text(args.lr_scheduler_type),
        "batch": {
            "histories_per_step": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
            "per_device": args.train_batch_size,
            "accumulation_steps": args.gradient_accumulation_steps,
            "processes": args.world_size,
        },
        "parameters": trainer.model.num_parameters() + (trainer.shards.n_elsewhere if trainer.shards else 0),
        "arguments": told
        | {name: without_folders(told[name]) for name in ("model_name_or_path", "items") if told[name]}
        | {"dataset": dataset_name(arguments.data.dataset)},
        "objective": args.objective(),
        "command": own_command(),
        "seed": args.seed,
        "versions": versions(),
        "commit": commit(),
        "hardware": hardware(trainer.args.device, trainer.args.world_size),
    }
    write_results(Path(output_dir) / RESULTS_FILE, results)
    return results


def _text(value: Any) -> str:
    """Return the word of one of transformers' enumerations."""
    return str(getattr(value, "value", value))
