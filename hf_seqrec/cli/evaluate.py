"""
Measure a checkpoint on a dataset: metrics with confidence intervals, by group of users, coverage and novelty.

With `--baselines` the checkpoint stands beside recommenders that only count, and is compared with the best of them.
Without a checkpoint they are measured alone.

    hf-seqrec evaluate runs/ml-1m --dataset data/ml-1m
    hf-seqrec evaluate runs/ml-1m --dataset data/ml-1m --baselines all
    hf-seqrec evaluate --dataset data/ml-1m --baselines popularity rules
    hf-seqrec evaluate org/model --dataset log.csv --eval_protocol sampled --output result.json
"""

import sys
import tempfile
from collections.abc import Sequence

from ..argument_parser import CommandParser
from ..checkpoints.load import load_checkpoint
from ..evaluation.environment import command
from ..evaluation.evaluate_baselines import baseline_results
from ..evaluation.evaluate_checkpoint import EvaluationArguments, evaluate_checkpoint
from ..evaluation.results import Results, dataset_name, without_folders, write_results
from ..evaluation.tables import print_evaluation
from ..ingest.open_dataset import DataArguments, check_dataset, resolve_dataset
from .options import add_checkpoint, check_device


def main(command_line: Sequence[str] | None = None) -> Results:
    """Parse the command line, evaluate, print a table and write the results, which are returned."""
    command_line = list(sys.argv[1:] if command_line is None else command_line)
    parser = CommandParser("hf-seqrec evaluate", __doc__ or "", [DataArguments, EvaluationArguments])
    add_checkpoint(parser, is_optional=True)
    parser.add_argument("--output", metavar="FILE", help="JSON file for the results.")
    data, arguments, rest = parser.parse_args_into_dataclasses(command_line)
    if rest.checkpoint is None and arguments.baselines is None:
        raise ValueError(
            "`checkpoint` must be a folder or the id of a model on the Hub, got none. Leave it out only with "
            "`--baselines`."
        )
    if arguments.device is not None:
        check_device(arguments.device)
    check_dataset(data.dataset, **data.log_options())
    checkpoint = None if rest.checkpoint is None else load_checkpoint(rest.checkpoint, rest.revision)
    # Where a log is built, for as long as it is needed.
    with tempfile.TemporaryDirectory(prefix="hf-seqrec-") as folder:
        sequences = resolve_dataset(data.dataset, folder, timestamps=data.split == "global_time", **data.log_options())
        splits, name = data.cut(sequences), dataset_name(data.dataset)
        if checkpoint is not None:
            results = evaluate_checkpoint(*checkpoint, sequences, splits, arguments, name)
            results["checkpoint"] = without_folders(rest.checkpoint)
        else:
            results = baseline_results(
                arguments.baselines, sequences, splits, arguments.protocol, arguments.parts, arguments.k, name
            )
    results["command"] = command(["hf-seqrec", "evaluate", *command_line])
    print_evaluation(results)
    if rest.output is not None:
        write_results(rest.output, results)
    return results
