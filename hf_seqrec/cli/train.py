"""
Train or fine-tune a recommender: parse, data, model, train, evaluate, save, recommend.

    hf-seqrec train                                                    the embedded synthetic dataset
    hf-seqrec train --dataset my-log.csv --output_dir runs/my-shop
    hf-seqrec train --config ml-1m/mamba4rec --dataset ml-1m.inter     a recipe
    hf-seqrec train --model_name_or_path runs/ml-1m/mamba4rec --dataset my-log.csv    fine-tune

Several processes:

    accelerate launch -m hf_seqrec train --config ml-1m/mamba4rec
    torchrun --nproc_per_node 2 -m hf_seqrec train --config ml-1m/mamba4rec
"""

import os
from collections.abc import Sequence
from typing import Any

# OpenMP threads with nothing to do spin for microseconds, not milliseconds, in which the scan's own threads could use
# the processor. libgomp reads it when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from accelerate import PartialState
from transformers import AutoModel, set_seed

from ..evaluation.evaluate_baselines import quick_baselines
from ..evaluation.tables import print_recommendations, print_results
from ..ingest.open_dataset import check_dataset
from ..training.cpu_tuning import keep_freed_memory, use_processors
from ..training.curves import CurvesCallback
from ..training.launch_checks import check_launcher
from ..training.run_arguments import parse_run_arguments
from ..training.run_data import load_run_data
from ..training.run_folder import checkpoint_to_resume, claim_run_folder
from ..training.run_model import load_start, make_run_model
from ..training.run_results import write_run_results
from ..training.trainer import SeqRecTrainer


def main(command_line: Sequence[str] | None = None) -> None:
    """Run what the recipe and the command line say."""
    arguments = parse_run_arguments(command_line, __doc__ or "")
    args = arguments.training
    processes = PartialState()
    check_launcher(processes.num_processes)
    if processes.is_main_process:
        check_dataset(arguments.data.dataset, **arguments.data.log_options())
        identity = arguments.run_identity()
        claim_run_folder(args.output_dir, identity, args.resume_from_checkpoint, args.overwrite_output_dir)
    processes.wait_for_everyone()
    set_seed(args.seed)
    if args.device.type == "cpu":
        use_processors(args.cpu_threads, processes.num_processes)
        keep_freed_memory()

    start = load_start(arguments)
    keep_items_of = start.catalog if start is not None and arguments.model.keep_vanished_items else None
    with processes.main_process_first():
        sequences, splits = load_run_data(arguments, keep_items_of)
    sampled = " (those who are evaluated)" if args.streaming else ""
    processes.print(f"Dataset {arguments.data.dataset}: {sequences}{sampled}")

    model, origin = make_run_model(arguments, start, sequences.catalog, splits)
    config = model.config
    processes.print(f"Model {config.model_type}: {model.num_parameters():,} parameters, {origin}")

    trainer = SeqRecTrainer(
        model=model,
        args=args,
        train_dataset=splits.train,
        eval_dataset=splits.validation,
        catalog=sequences.catalog,
        callbacks=[CurvesCallback()],
    )
    trainer.train(resume_from_checkpoint=checkpoint_to_resume(args.output_dir, args.resume_from_checkpoint))

    # `predict` and not `evaluate`: early stopping would miss its metric among those of the test set.
    tested: Any = trainer.predict(splits.test, metric_key_prefix="test").metrics
    metrics = trainer.evaluate() | tested
    trainer.save_model(_internal_call=True)  # pushed below, with its results
    if processes.is_main_process:
        baselines = quick_baselines(splits, trainer.protocol)
        trainer.results = write_run_results(args.output_dir, trainer, arguments, sequences, splits, metrics, baselines)
        trainer.create_model_card()
        print_results(sequences, splits, metrics, trainer.protocol, baselines)
        if args.shard_embeddings:
            model = AutoModel.from_pretrained(args.output_dir)  # of the rows that were here others have some
        print_recommendations(model, sequences.catalog, splits.test)
    # The first to leave takes the process group with it.
    processes.wait_for_everyone()
    trainer.end()
    if args.push_to_hub and processes.is_main_process:
        print(f"Pushed to {trainer.push_saved().repo_url}")
