"""Push a model to the Hub with its code, and with the catalog and the card of the checkpoint that it came from."""

import filecmp
import json
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, HfApi, ModelCard, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError
from transformers import PreTrainedModel
from transformers.utils import logging

logger = logging.get_logger(__name__)

_CATALOG, _CARD = "catalog.parquet", "README.md"


def push_model(
    model: PreTrainedModel,
    repo_id: str,
    *,
    commit_message: str | None = None,
    commit_description: str | None = None,
    private: bool | None = None,
    token: bool | str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    max_shard_size: int | str = "50GB",
    tags: str | list[str] | None = None,
) -> CommitInfo:
    r"""
    Push weights, configuration and code, as transformers does, and return the commit.

    The arguments are those of `PreTrainedModel.push_to_hub`. A model that was loaded from a checkpoint, a folder or on
    the Hub, brings its catalog from there. It brings the card too if its weights are still those that the card's
    numbers were measured with; otherwise, where the repository has no card yet, it gets one that says that nothing was
    measured.
    """
    hub = HfApi(token=token)
    name = hub.create_repo(repo_id, private=private, exist_ok=True).repo_id
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model.save_pretrained(folder, max_shard_size=max_shard_size)
        _bring_catalog(model, folder, token)
        card = _card(model, folder, token)
        if card is None and hub.file_exists(name, _CARD):
            logger.warning(f"The card of {name} stays as it is. See that its numbers are of what is pushed now.")
        elif card is None:
            card = _card_without_results(model)
        if card is not None:
            _write_card(card, folder / _CARD, name, [tags] if isinstance(tags, str) else tags or [])
        if revision is not None and not create_pr:
            hub.create_branch(name, branch=revision, exist_ok=True)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "It seems that you are about to commit a data file")
            return hub.upload_folder(
                repo_id=name,
                folder_path=folder,
                commit_message=commit_message or "Upload model",
                commit_description=commit_description,
                revision=revision,
                create_pr=create_pr,
            )


def _of_origin(model: PreTrainedModel, file: str, token: bool | str | None) -> Path | None:
    """Return a file of the checkpoint that a model was loaded from, or `None` where there is none."""
    origin = model.name_or_path
    if not origin:
        return None
    if Path(origin).is_dir():
        path = Path(origin, file)
        return path if path.is_file() else None
    try:
        # Of the commit that was loaded, whatever was pushed since.
        commit = getattr(model.config, "_commit_hash", None)
        return Path(hf_hub_download(origin, file, revision=commit, token=token))
    except (EntryNotFoundError, HfHubHTTPError):
        return None


def _bring_catalog(model: PreTrainedModel, folder: Path, token: bool | str | None) -> None:
    catalog, config = (_of_origin(model, file, token) for file in (_CATALOG, "config.json"))
    n_rows = None if config is None else json.loads(config.read_text(encoding="utf-8")).get("vocab_size")
    # Items may have been added or taken away since.
    if catalog is not None and n_rows == model.config.vocab_size:
        shutil.copyfile(catalog, folder / _CATALOG)
        return
    logger.warning(
        "The model is pushed without a catalog, as it was not loaded from a checkpoint that has the one of its items. "
        "`catalog.push_to_hub(...)` with the same name adds it; without it nobody knows what the rows stand for."
    )


def _card(model: PreTrainedModel, folder: Path, token: bool | str | None) -> str | None:
    """Return the card that the model came with, if it still speaks of these weights."""
    card = _of_origin(model, _CARD, token)
    for weights in folder.glob("*.safetensors") if card is not None else ():
        before = _of_origin(model, weights.name, token)
        if before is None or not filecmp.cmp(before, weights, shallow=False):
            return None
    return None if card is None else card.read_text(encoding="utf-8")


def _card_without_results(model: PreTrainedModel) -> str:
    config: Any = model.config
    return (
        f"---\nlibrary_name: transformers\ntags: [sequential-recommendation, {config.model_type}]\n---\n"
        f"# {type(model).__name__} for {config.n_items:,} items\n\n"
        "A sequential recommender of [hf_seqrec](https://pypi.org/project/hf-seqrec/). Nothing was measured of it.\n"
    )


def _write_card(text: str, path: Path, name: str, tags: list[str]) -> None:
    # The package's own cards leave a place for the name.
    card = ModelCard(text.replace("this/repository", name))
    if tags:
        card.data["tags"] = list(dict.fromkeys([*(card.data.get("tags") or []), *tags]))
    card.save(path)
