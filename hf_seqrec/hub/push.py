"""Share a checkpoint or a dataset folder on the Hub, as `hf-seqrec push` does."""

import os
import shutil
import tempfile
from pathlib import Path

from huggingface_hub import CommitInfo
from safetensors import SafetensorError, safe_open

from ..checkpoints.card import CARD_FILE, card_of_folder, of_repository
from ..checkpoints.load import load_config
from ..data.catalog import CATALOG_FILE, Catalog, check_catalog_fits
from ..evaluation.results import RESULTS_FILE, read_results
from .upload import check_holds_no_token, check_repo_id, make_repository, upload

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
        folder (`str`): What `hf-seqrec train`, the Trainer or `save_pretrained` and `Catalog.save` wrote.
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
