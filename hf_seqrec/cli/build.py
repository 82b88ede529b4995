"""
Build a dataset folder from a log of interactions: .inter (RecBole), .csv, .tsv, .jsonl or .parquet.

    hf-seqrec build my-log.csv --output data/my-shop --min_user_events 5 --min_item_events 5
    hf-seqrec build "logs/2024-*.csv.gz" --output data/my-shop --rating_threshold 4
    hf-seqrec build ml-1m --output data/ml-1m

Several files of the same columns are one log, in the order given (a pattern's files by name). Events are ordered by
time, those of the same time by their position in the log.

Public datasets, written first: ml-1m, amazon, kuairand, lfm-1b; `hf-seqrec build amazon --help` has the options of
its own. `hf-seqrec build synthetic` makes up histories whose best reachable metrics are known. A folder of such a name
is `./ml-1m`.
"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from ..argument_parser import CommandParser
from ..data.sequences import load_sequences
from ..ingest.build import BuildArguments, build_dataset
from ..ingest.dataset_card import About
from ..ingest.log_files import RawFile
from ..ingest.open_dataset import SYNTHETIC
from ..ingest.public_datasets import PUBLIC_DATASETS, public_dataset
from ..ingest.public_datasets.source import PublicDataset
from ..ingest.read_log import InteractionsArguments
from ..ingest.synthetic import build_synthetic
from .dataset_building import (
    LOG_PATTERNS,
    PathArguments,
    command_without_folders,
    open_source,
    print_statistics,
    push_to_hub,
)
from .options import add_switch

_SYNTHETIC_DOC = """
Write the synthetic dataset as a folder: made-up histories whose best reachable metrics are known.

    hf-seqrec build synthetic --output data/synthetic --n_users 3000 --seed 0
"""


def main(command_line: Sequence[str] | None = None) -> None:
    """Build and say what came out."""
    words = list(sys.argv[1:] if command_line is None else command_line)
    if words[:1] == [SYNTHETIC]:
        _build_synthetic(words[1:])
    elif words and words[0] in PUBLIC_DATASETS:
        _build_public(words[0], words[1:])
    else:
        _build_log(words)


def parse_log_command(prog: str, doc: str, words: list[str]) -> tuple[Any, ...]:
    """Return `PathArguments` with the log in `raw`, `InteractionsArguments` and `BuildArguments`."""
    parser = CommandParser(prog, doc, [PathArguments, InteractionsArguments, BuildArguments])
    if not any(word == "--raw" or word.startswith("--raw=") for word in words):
        parser.add_argument(
            "log", nargs="+", help="Files, a folder, an archive, a pattern or an address (https://, hf://, s3://)."
        )
    paths, arguments, build_arguments, *rest = parser.parse_args_into_dataclasses(words)
    if rest:
        paths.raw = rest[0].log
    return paths, arguments, build_arguments


def _build_log(words: list[str]) -> None:
    paths, arguments, build_arguments = parse_log_command("hf-seqrec build", __doc__ or "", words)
    named = [name for name in paths.raw if name in (*PUBLIC_DATASETS, SYNTHETIC)]
    if named:
        raise ValueError(f"the name of a public dataset must come first: `hf-seqrec build {named[0]} ...`.")
    with open_source(paths, "interactions", LOG_PATTERNS, list) as (source, _):
        raw = RawFile.open(source.take(*LOG_PATTERNS))
        _build(raw, paths, arguments, build_arguments, About(raw.stem), ["build", *words])


def _build_public(name: str, words: list[str]) -> None:
    cls = public_dataset(name)
    doc = sys.modules[cls.__module__].__doc__ or ""
    parser = CommandParser(f"hf-seqrec build {name}", doc, [cls, PathArguments, InteractionsArguments, BuildArguments])
    dataset, paths, arguments, build_arguments = parser.parse_args_into_dataclasses(words)
    _check_format_is_left_out(dataset, arguments)
    try:
        with open_source(paths, dataset.folder, dataset.wanted(), dataset.published) as (source, work):
            tables = dataset.tables(source, work)
            arguments = dataclasses.replace(arguments, **tables.columns, where=[*tables.where, *arguments.where])
            command = ["build", name, *words]
            _build(tables.log, paths, arguments, build_arguments, dataset.about(), command, tables.items)
    except FileNotFoundError as error:
        reason = dataset.not_found()
        if paths.raw is not None or reason is None:
            raise
        raise FileNotFoundError(f"{reason}: {error}") from error


def _check_format_is_left_out(dataset: PublicDataset, arguments: InteractionsArguments) -> None:
    named = [name for name in dataset.format_fields if getattr(arguments, name) is not None]
    if named:
        raise ValueError(
            f"`{'`, `'.join(named)}` must be left out: this dataset's format is known. For another table use "
            "`hf-seqrec build <log>`."
        )


def _build(
    raw: RawFile,
    paths: PathArguments,
    arguments: InteractionsArguments,
    build_arguments: BuildArguments,
    about: About,
    command: list[str],
    items: RawFile | None = None,
) -> None:
    """Build the dataset folder, say what came out, upload it if asked to."""
    about = dataclasses.replace(about, command=command_without_folders(command))
    folder = build_dataset(raw, paths.output, arguments, build_arguments, items=items, about=about, progress=True)
    print_statistics(folder)
    if paths.push_to_hub is not None:
        print(push_to_hub(folder, paths.push_to_hub))


def _build_synthetic(words: list[str]) -> None:
    parser = CommandParser("hf-seqrec build synthetic", _SYNTHETIC_DOC)
    parser.add_argument("--output", required=True, help="The dataset folder. An earlier dataset there is replaced.")
    parser.add_argument("--n_users", type=int, default=3000, help="Number of readers.")
    parser.add_argument("--n_items", type=int, default=500, help="Number of items: a multiple of 20, at least 200.")
    parser.add_argument("--mean_length", type=float, default=40.0, help="Events of a user, on average.")
    add_switch(parser, "keep_unread_items", help="List items in the catalog that nobody has read, too.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the histories.")
    folder = build_synthetic(**vars(parser.parse_args(words)))
    sequences = load_sequences(folder)
    reachable = sequences.statistics["reachable"]
    print(f"{folder}: {sequences}")
    for metric in ("hr@10", "ndcg@10"):
        print(f"test {metric}: best reachable {reachable[metric]:.4f}")
