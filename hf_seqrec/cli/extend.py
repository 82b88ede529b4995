"""
Add the events of a log to a dataset folder. Items keep their rows and new ones come after them.

    hf-seqrec extend yesterday.csv --output data/my-shop

A checkpoint that was trained on the folder before stays valid. Events that are there already are left out, so a log
may overlap with the last one.
"""

import sys
from collections.abc import Sequence

from ..ingest.extend import extend_dataset
from ..ingest.log_files import RawFile
from .build import parse_log_command
from .dataset_building import LOG_PATTERNS, open_source, print_statistics, push_to_hub


def main(command_line: Sequence[str] | None = None) -> None:
    """Extend and say what came out."""
    words = list(sys.argv[1:] if command_line is None else command_line)
    paths, arguments, build_arguments = parse_log_command("hf-seqrec extend", __doc__ or "", words)
    with open_source(paths, "interactions", LOG_PATTERNS, list) as (source, _):
        raw = RawFile.open(source.take(*LOG_PATTERNS))
        folder = extend_dataset(paths.output, raw, arguments, build_arguments, progress=True)
    print_statistics(folder)
    if paths.push_to_hub is not None:
        print(push_to_hub(folder, paths.push_to_hub))
