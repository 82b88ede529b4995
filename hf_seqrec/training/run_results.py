"""What a run leaves and prints at its end: results and how they were made, metrics, a user's recommendations."""

import json
from pathlib import Path
from typing import Any

from ..checkpoints.card import RESULTS_FILE
from ..data.sequences import Sequences
from ..evaluation.environment import commit, hardware, own_command, versions
from .run_arguments import RunArguments
from .run_data import Splits
from .trainer import SeqRecTrainer


def write_results(
    output_dir: str,
    trainer: SeqRecTrainer,
    arguments: RunArguments,
    sequences: Sequences,
    splits: Splits,
    metrics: dict[str, float],
) -> dict[str, Any]:
    r"""
    Write and return `results.json`: every metric of validation and test, and what it takes to obtain them again.

    Args:
        output_dir (`str`): The run's folder.
        trainer ([`SeqRecTrainer`]): After training.
        arguments ([`RunArguments`]): What was asked for.
        sequences ([`Sequences`]): What was trained on.
        splits: What of it was held out, as [`~hf_seqrec.training.run_data.load_run_data`] returns it.
        metrics (`dict[str, float]`): `eval_...` of validation and `test_...`.
    """
    history = trainer.state.log_history
    results = {
        "model_type": trainer.model.config.model_type,
        "dataset": arguments.data.dataset,
        "statistics": sequences.statistics,
        "protocol": f"{splits.protocol}, {trainer.protocol.description}",
        "rankings": trainer.protocol.rankings,
        "split_counts": splits.counts,
        "metrics": {name: value for name, value in sorted(metrics.items()) if "@" in name or name.endswith("_loss")},
        "best_step": trainer.state.best_global_step,
        "epochs": trainer.state.epoch,
        # A run that went on from a checkpoint knows only the time since.
        "resumed_from": trainer.resumed_from,
        "train_seconds": next((entry["train_runtime"] for entry in history if "train_runtime" in entry), None),
        "parameters": trainer.model.num_parameters() + (trainer.shards.n_elsewhere if trainer.shards else 0),
        "arguments": arguments.what_is_trained(),
        "objective": arguments.training.what_is_learned(),
        "command": own_command(),
        "seed": arguments.training.seed,
        "versions": versions(),
        "commit": commit(),
        "hardware": hardware(trainer.args.device, trainer.args.world_size),
    }
    path = Path(output_dir) / RESULTS_FILE
    path.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return results
