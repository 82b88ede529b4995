"""
Share on the Hub: a checkpoint, a dataset folder, or one of this package's metrics.

    hf-seqrec push runs/ml-1m org/mamba4rec-ml-1m
    hf-seqrec push data/ml-1m org/ml-1m
    hf-seqrec push full_ranking org/full_ranking

The token is that of `hf auth login` or of the environment (HF_TOKEN).
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo
from safetensors import SafetensorError, safe_open

from ..checkpoints.card import CARD_FILE, card_of_folder, of_repository
from ..checkpoints.load import load_config
from ..data.catalog import CATALOG_FILE, Catalog, check_catalog_fits
from ..data.sequences import is_dataset_folder
from ..evaluation.results import RESULTS_FILE, read_results
from .metric_space import MODULES, push_metric_space, write_metric_space
from .upload import PushError, check_holds_no_token, check_repo_id, how_to_push_again, make_repository, upload

# What of a checkpoint folder is shared. Not what a run goes on from, nor its log, nor its dataset.
_SHARED = (
    *("config.json", "catalog.parquet", "*.safetensors", "*.safetensors.index.json", "*.py", "requirements.txt"),
    *(CARD_FILE, RESULTS_FILE, "*.png"),
)


def push_checkpoint(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    token: str | None = None,
    commit_message: str = "Upload model",
    licence: str | None = None,
) -> CommitInfo:
    r"""
    Push a checkpoint folder: weights, configuration, code, catalog, card, curves, results; return the commit.

    The card gets the name of the repository; a checkpoint without one gets a card of what is known. The folder stays
    as it is.

    Args:
        folder (`str`): What `trainer/run.py`, the Trainer or `save_pretrained` and `Catalog.save` wrote.
        repo_id, private, revision, token, commit_message: See [`~hf_seqrec.hub.upload.upload`].
        licence (`str`, *optional*): Of the weights, as the Hub names licences (`apache-2.0`), where the card has none.

    Raises:
        ValueError: if `repo_id` is no name of a repository, or the folder is not a whole checkpoint.
        PushError: if the Hub refuses it, or cannot be reached.
    """
    check_repo_id(repo_id)
    folder = Path(folder)
    files = checked_files(folder)
    check_holds_no_token(files, token)
    repo_id = make_repository(repo_id, private=private, token=token)
    with tempfile.TemporaryDirectory(prefix="hf-seqrec-push-") as temporary:
        for path in files:
            _link(path, Path(temporary, path.name))
        card = of_repository(_card(folder), repo_id, licence)
        Path(temporary, CARD_FILE).unlink(missing_ok=True)
        Path(temporary, CARD_FILE).write_text(card, encoding="utf-8")
        return upload(temporary, repo_id, revision=revision, token=token, commit_message=commit_message)


def checked_files(folder: Path) -> list[Path]:
    """
    Return the files of a checkpoint folder that are shared.

    Raises:
        ValueError: if the checkpoint lacks something, or its parts do not belong together.
    """
    config = load_config(folder)
    files = sorted({path for pattern in _SHARED for path in folder.glob(pattern) if path.is_file()})
    names = {path.name for path in files}
    code = [f"{reference.split('.')[0]}.py" for reference in getattr(config, "auto_map", {}).values()]
    missing = sorted({*code, "catalog.parquet"} - names)
    weights = [path for path in files if path.suffix == ".safetensors"]
    if not weights or not code or missing:
        lacks = ", ".join(missing) or ("weights (*.safetensors)" if not weights else "its code (`auto_map`)")
        raise ValueError(
            f"{folder} is not a whole checkpoint: it lacks {lacks}. Write it with `model.save_pretrained(folder)` and "
            "`catalog.save(folder)`, as the Trainer does."
        )
    for path in weights:
        try:
            with safe_open(path, framework="numpy"):
                pass
        except SafetensorError as error:
            raise ValueError(f"{path} is cut short or damaged, so it was not pushed: {error}") from error
    check_catalog_fits(config, Catalog.from_pretrained(folder), f"{folder}/{CATALOG_FILE}")
    return files


def _card(folder: Path) -> str:
    card = folder / CARD_FILE
    if card.is_file():
        return card.read_text(encoding="utf-8")
    results = folder / RESULTS_FILE
    measured = read_results(results) if results.is_file() else None
    return str(card_of_folder(folder, load_config(folder), measured))


def _link(path: Path, to: Path) -> None:
    """Have a file in another place too, without a copy where the system can."""
    try:
        os.symlink(path.resolve(), to)
    except OSError:
        shutil.copyfile(path, to)


def main(command_line: Sequence[str] | None = None) -> None:
    """Parse the command line, push, and say how to load it."""
    parser = argparse.ArgumentParser(
        prog="hf-seqrec push",
        description=(__doc__ or "").strip().split("\n")[0],
        epilog="The token is that of `hf auth login` or of the environment (HF_TOKEN).",
    )
    parser.add_argument("what", help=f"A checkpoint folder, a dataset folder, or a metric ({', '.join(MODULES)}).")
    parser.add_argument("repo_id", help="`org/name`. A repository that is not there yet is made.")
    parser.add_argument(
        "--private",
        action=argparse.BooleanOptionalAction,
        help="Who may see a new repository. Without either, datasets are private and the rest is as the organization "
        "has it.",
    )
    parser.add_argument("--revision", help="Branch to commit to, made where there is none. By default main.")
    parser.add_argument("--commit_message", help="What the commit says.")
    parser.add_argument("--license", help="Licence of a checkpoint's weights, as the Hub names it (apache-2.0).")
    arguments = parser.parse_args(command_line)
    try:
        print(_push(arguments))
    except (PushError, ValueError) as error:
        again = f" {how_to_push_again(arguments.what, arguments.repo_id)}" if isinstance(error, PushError) else ""
        sys.exit(f"error: {error}{again}")


def _push(arguments: argparse.Namespace) -> str:
    """Push what was asked for; return what to tell about it."""
    check_repo_id(arguments.repo_id)
    options: dict[str, Any] = {
        name: getattr(arguments, name)
        for name in ("private", "revision", "commit_message")
        if getattr(arguments, name) is not None
    }
    folder = Path(arguments.what)
    if arguments.what in MODULES and not folder.is_dir():
        with tempfile.TemporaryDirectory(prefix="hf-seqrec-push-") as temporary:
            commit = push_metric_space(write_metric_space(arguments.what, temporary), arguments.repo_id, **options)
        repo_id = commit.repo_url.repo_id
        load = f'evaluate.load("{repo_id}")'
    elif is_dataset_folder(folder):
        commit = push_dataset(folder, arguments.repo_id, **options)
        repo_id = commit.repo_url.repo_id
        load = f'datasets.load_dataset("{repo_id}")\n    trainer/run.py --dataset {repo_id}'
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


if __name__ == "__main__":
    main()


def push_dataset(
    folder: Path,
    repo_id: str,
    *,
    private: bool = True,
    revision: str | None = None,
    commit_message: str = "Upload dataset",
) -> CommitInfo:
    """Upload a dataset folder and return the commit; the arguments are those of [`~hf_seqrec.hub.upload.upload`]."""
    return upload(
        folder,
        repo_id,
        "dataset",
        # Of a new one: an existing repository keeps who may see it.
        private=private,
        revision=revision,
        commit_message=commit_message,
        # What an earlier version had more of, such as shards.
        delete_patterns=["*.parquet"],
    )
