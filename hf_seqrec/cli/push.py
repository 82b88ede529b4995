"""
Share on the Hub: a checkpoint, a dataset folder, or one of this package's metrics.

    hf-seqrec push runs/ml-1m org/mamba4rec-ml-1m
    hf-seqrec push data/ml-1m org/ml-1m
    hf-seqrec push full_ranking org/full_ranking

The token is that of `hf auth login` or of the environment (HF_TOKEN).
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..argument_parser import CommandParser
from ..data.sequences import is_dataset_folder
from ..hub.metric_space import MODULES, push_metric_space, write_metric_space
from ..hub.push import push_checkpoint, push_dataset
from ..hub.upload import PushError, check_repo_id, how_to_push_again
from .options import add_switch


def main(command_line: Sequence[str] | None = None) -> None:
    """Parse the command line, push, and say how to load it."""
    parser = CommandParser("hf-seqrec push", __doc__ or "")
    parser.add_argument("what", help=f"A checkpoint folder, a dataset folder, or a metric ({', '.join(MODULES)}).")
    parser.add_argument("repo_id", help="`org/name`. A repository that is not there yet is made.")
    add_switch(
        parser,
        "private",
        default=None,
        help="Who may see a new repository. Without either, datasets are private and the rest is as the organization "
        "has it.",
    )
    parser.add_argument("--revision", help="Branch to commit to, made where there is none. By default main.")
    parser.add_argument("--commit_message", help="What the commit says.")
    parser.add_argument("--license", help="Licence of a checkpoint's weights, as the Hub names it (apache-2.0).")
    arguments = parser.parse_args(command_line)
    check_repo_id(arguments.repo_id)
    try:
        print(_push(arguments))
    except PushError as error:
        raise PushError(f"{error} {how_to_push_again(arguments.what, arguments.repo_id)}") from error


def _push(arguments: argparse.Namespace) -> str:
    """Push what was asked for; return what to tell about it."""
    options: dict[str, Any] = {
        name: getattr(arguments, name)
        for name in ("private", "revision", "commit_message")
        if getattr(arguments, name) is not None
    }
    folder = Path(arguments.what)
    if arguments.what in MODULES and not folder.is_dir():
        with tempfile.TemporaryDirectory(prefix="hf-seqrec-push-") as temporary:
            commit = push_metric_space(write_metric_space(arguments.what, temporary), arguments.repo_id, **options)
        load = f'evaluate.load("{commit.repo_url.repo_id}")'
    elif is_dataset_folder(folder):
        commit = push_dataset(folder, arguments.repo_id, **options)
        repo_id = commit.repo_url.repo_id
        load = f'datasets.load_dataset("{repo_id}")\n    hf-seqrec train --dataset {repo_id}'
    elif folder.is_dir():
        commit = push_checkpoint(folder, arguments.repo_id, licence=arguments.license, **options)
        repo_id = commit.repo_url.repo_id
        load = (
            f'AutoModel.from_pretrained("{repo_id}")  # after `import hf_seqrec`, or with trust_remote_code=True\n'
            f"    hf-seqrec recommend {repo_id} --history ..."
        )
    else:
        raise ValueError(
            f"`what` must be a checkpoint folder, a dataset folder or one of {', '.join(MODULES)}, got "
            f"{arguments.what!r}, which is none of these."
        )
    return f"Pushed {arguments.what} to {commit.repo_url}, commit {commit.oid}\n    {load}"
