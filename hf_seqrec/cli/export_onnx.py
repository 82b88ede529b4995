"""
Export a checkpoint to ONNX: histories in, scores of the whole catalog out, in one file that needs no Python to run.

    hf-seqrec export-onnx runs/ml-1m --output mamba4rec.onnx
"""

from collections.abc import Sequence
from pathlib import Path

from ..argument_parser import CommandParser
from ..checkpoints.export_onnx import export_onnx
from ..checkpoints.load import load_checkpoint
from .options import add_checkpoint


def main(command_line: Sequence[str] | None = None) -> None:
    """Parse the command line, export and say what was written."""
    parser = CommandParser("hf-seqrec export-onnx", __doc__ or "")
    add_checkpoint(parser)
    parser.add_argument("--output", required=True, help="The .onnx file to write.")
    arguments = parser.parse_args(command_line)
    model, catalog = load_checkpoint(arguments.checkpoint, arguments.revision)
    difference = export_onnx(model.float(), arguments.output, catalog)
    megabytes = Path(arguments.output).stat().st_size / 1e6
    print(
        f"{arguments.output}: {type(model).__name__}, {catalog.n_items:,} items, {megabytes:.1f} MB; "
        f"scores within {difference:.1e} of torch."
    )
