"""
Convert a checkpoint of the authors' code into a checkpoint folder of this package.

    hf-seqrec convert saved/Mamba4Rec.pth --output mamba4rec-ml-1m --item_ids data/ml-1m
    hf-seqrec convert SASRec.pth --output sasrec --config num_attention_heads=1 normalization=post
"""

from collections.abc import Sequence
from typing import Any

import yaml

from ..argument_parser import CommandParser
from ..checkpoints.convert.conversion import convert_checkpoint
from .options import add_switch


def main(command_line: Sequence[str] | None = None) -> None:
    """Parse the command line, convert, and print what became of every weight."""
    parser = CommandParser("hf-seqrec convert", __doc__ or "")
    parser.add_argument("source", help="The .pth file. Nothing in it is run.")
    parser.add_argument("--output", required=True, help="The checkpoint folder to write.")
    parser.add_argument("--model_type", help="What the checkpoint is; by default its weights tell.")
    parser.add_argument(
        "--item_ids",
        help="Raw item ids in row order: a dataset folder, catalog.parquet, a .txt with one a line, a .csv or .tsv "
        "with a column item_id, a .json list; or `rows` if the ids are the rows' numbers.",
    )
    parser.add_argument(
        "--config", nargs="+", default=[], metavar="FIELD=VALUE", help="What the checkpoint does not tell."
    )
    add_switch(parser, "overwrite", help="Replace the checkpoint that is at --output.")
    arguments = parser.parse_args(command_line)
    conversion = convert_checkpoint(
        arguments.source,
        arguments.output,
        model_type=arguments.model_type,
        item_ids=arguments.item_ids,
        config=dict(_field(text) for text in arguments.config),
        overwrite=arguments.overwrite,
    )
    print(conversion)


def _field(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"`--config` takes FIELD=VALUE, got {text!r}.")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"`--config` {name} must have a plain value, got {value!r}.") from error
