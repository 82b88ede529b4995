"""
Add handler.py and requirements.txt to a checkpoint folder, for a Hugging Face Inference Endpoint.

    hf-seqrec endpoint runs/ml-1m
    hf-seqrec push runs/ml-1m org/mamba4rec-ml-1m
"""

from collections.abc import Sequence
from pathlib import Path

from ..argument_parser import CommandParser
from ..serving.endpoint import write_endpoint


def main(command_line: Sequence[str] | None = None) -> None:
    """Parse the command line and write the files."""
    parser = CommandParser("hf-seqrec endpoint", __doc__ or "")
    parser.add_argument("checkpoint", type=Path, help="A checkpoint folder.")
    for path in write_endpoint(parser.parse_args(command_line).checkpoint):
        print(path)
