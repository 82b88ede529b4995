"""
Give a checkpoint the items of another catalog, without training: items with the same raw id keep what was learned.

    hf-seqrec adapt runs/my-shop --catalog data/my-shop --output runs/my-shop-today
    hf-seqrec adapt org/model --catalog data/my-shop --output start --new_items cooccurrence
"""

from collections.abc import Sequence

from ..argument_parser import CommandParser
from ..checkpoints.adapt import NEW_ITEMS, adapt_checkpoint
from .options import add_checkpoint, add_switch


def main(command_line: Sequence[str] | None = None) -> None:
    """Parse the command line, carry the checkpoint over and say what became of the items."""
    parser = CommandParser("hf-seqrec adapt", __doc__ or "")
    add_checkpoint(parser)
    parser.add_argument("--catalog", required=True, help="Dataset folder (or Hub id) that has the new catalog.")
    parser.add_argument("--output", required=True, help="The checkpoint folder to write; new or empty.")
    parser.add_argument("--new_items", choices=NEW_ITEMS, default="mean", help="What new items start from.")
    add_switch(
        parser,
        "held_out",
        help="`cooccurrence`: leave out each user's last two events, to evaluate on them afterwards.",
    )
    add_switch(parser, "keep_vanished_items", help="Keep items that the new catalog does not have.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of `random`.")
    arguments = parser.parse_args(command_line)
    change = adapt_checkpoint(
        arguments.checkpoint,
        arguments.catalog,
        arguments.output,
        new_items=arguments.new_items,
        keep_vanished=arguments.keep_vanished_items,
        held_out=arguments.held_out,
        seed=arguments.seed,
        revision=arguments.revision,
    )
    print(f"{change}.\nWrote {arguments.output}.")
