"""
Try a checkpoint in the browser: search titles, click a history together, see what it recommends after every click.

    hf-seqrec demo runs/ml-1m
    hf-seqrec demo my-name/mamba4rec-ml-1m --space spaces/my-demo

The second writes the files of a Space that shows the same page. The page needs the extra `demo` (gradio).
"""

from collections.abc import Sequence

from ..argument_parser import CommandParser
from ..serving.page import build_page, write_space
from .options import add_address, add_checkpoint, check_address


def main(command_line: Sequence[str] | None = None) -> None:
    """Parse the command line and open the page, or write the files of a Space."""
    parser = CommandParser("hf-seqrec demo", __doc__ or "")
    add_checkpoint(parser)
    parser.add_argument("--top_k", type=int, default=10, help="Number of items to recommend.")
    add_address(parser, 7860)
    parser.add_argument("--space", metavar="FOLDER", help="Write the files of a Space there instead.")
    arguments = parser.parse_args(command_line)
    if arguments.space:
        print(f"Wrote {write_space(arguments.space, arguments.checkpoint)}")
        return
    check_address(arguments.host, arguments.port)
    page = build_page(arguments.checkpoint, arguments.top_k, arguments.revision)
    page.launch(server_name=arguments.host, server_port=arguments.port)
