"""
Train a sequential recommender: parse, data, model, train, evaluate, save, recommend.

    python trainer/run.py                                           the embedded synthetic dataset
    accelerate launch trainer/run.py --config trainer/recipes/ml-1m/mamba4rec.yaml --dataset ml-1m.inter
    accelerate launch trainer/run.py --model_name_or_path runs/ml-1m/mamba4rec --dataset my-log.csv    fine-tune
    torchrun --nproc_per_node 2 trainer/run.py --config ...         several processes
"""

import os
from typing import Any

# OpenMP threads with nothing to do spin for microseconds, not milliseconds, in which the scan's own threads could use
# the processor. libgomp reads it when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from accelerate import PartialState
from transformers import AutoModel, set_seed

from hf_seqrec.evaluation.tables import print_recommendations, print_results
from hf_seqrec.training.cpu_tuning import keep_freed_memory, use_processors
from hf_seqrec.training.curves import CurvesCallback
from hf_seqrec.training.launch_checks import check_launcher
from hf_seqrec.training.run_arguments import parse_run_arguments
from hf_seqrec.training.run_data import load_run_data
from hf_seqrec.training.run_folder import checkpoint_to_resume, claim_run_folder
from hf_seqrec.training.run_model import load_start, make_run_model
from hf_seqrec.training.run_results import write_run_results
from hf_seqrec.training.trainer import SeqRecTrainer


def main() -> None:
    """Run what the recipe and the command line say."""
    arguments = parse_run_arguments()
    args = arguments.training
    processes = PartialState()
    check_launcher(processes.num_processes)
    if processes.is_main_process:
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
        trainer.results = write_run_results(args.output_dir, trainer, arguments, sequences, splits, metrics)
        trainer.create_model_card()
        print_results(sequences, splits, metrics, trainer.protocol)
        if args.shard_embeddings:
            model = AutoModel.from_pretrained(args.output_dir)  # of the rows that were here others have some
        print_recommendations(model, sequences.catalog, splits.test)
    # The first to leave takes the process group with it.
    processes.wait_for_everyone()
    trainer.end()
    if args.push_to_hub and processes.is_main_process:
        print(f"Pushed to {trainer.push_saved().repo_url}")


if __name__ == "__main__":
    main()
