"""Open a checkpoint folder: the model and the catalog that belongs to it, checked against each other."""

from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModel, PreTrainedConfig

from ..data.catalog import CATALOG_FILE, Catalog, check_catalog_fits
from ..models import MODEL_TYPES, model_class
from ..models.modeling_seqrec import SeqRecPreTrainedModel


class Checkpoint(NamedTuple):
    """A model in evaluation mode, and the catalog that names its rows."""

    model: SeqRecPreTrainedModel
    catalog: Catalog


def load_checkpoint(name_or_path: str | Path, revision: str | None = None, **changes: Any) -> Checkpoint:
    r"""
    Load a checkpoint with its catalog.

    `AutoModel.from_pretrained` loads the model alone; this also says what is wrong with a folder.

    Args:
        name_or_path (`str`): A checkpoint folder or the id of a model on the Hub.
        revision (`str`, *optional*): Branch, tag or commit on the Hub.
        changes: Fields of the configuration to change, such as `hidden_dropout_prob`. `attn_implementation` is
            ignored by models without attention.

    Raises:
        ValueError: if the folder is no checkpoint, holds another kind of model, is damaged, or its catalog is not the
            model's.
    """
    folder = checkpoint_folder(name_or_path, revision)
    config = load_config(folder)
    if not model_class(config.model_type)._supports_sdpa:
        # transformers refuses it; to load any checkpoint with one setting should work.
        changes.pop("attn_implementation", None)
    model = _load_weights(folder, changes)
    catalog = Catalog.from_pretrained(folder)
    check_catalog_fits(model.config, catalog, f"{folder}/{CATALOG_FILE}")
    return Checkpoint(model, catalog)


def checkpoint_folder(name_or_path: str | Path, revision: str | None = None) -> Path:
    """Return a folder as it is, and of a model on the Hub the folder it has been downloaded to."""
    folder = Path(name_or_path)
    return folder if folder.is_dir() else _fetch(str(name_or_path), revision)


def _fetch(name: str, revision: str | None) -> Path:
    try:
        # What is in folders, such as a checkpoint to resume from, is the run's own.
        return Path(snapshot_download(name, revision=revision, ignore_patterns=["*/*"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise ValueError(f"{name!r} is no folder, nor a model on the Hub that can be reached: {error}") from error


def load_config(folder: Path) -> PreTrainedConfig:
    """
    Load the configuration of a checkpoint folder.

    Raises:
        ValueError: if the folder is no checkpoint, holds another kind of model, or the configuration is damaged.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"{folder} is not a checkpoint folder: it has no config.json. Pass what `save_pretrained` wrote."
        )
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder}/config.json is damaged or of an unknown model type: {error}") from error
    if config.model_type not in MODEL_TYPES:
        raise ValueError(
            f"{folder} holds a {config.model_type!r} model, expected one of {', '.join(MODEL_TYPES)}. "
            "Load it with the library that it belongs to."
        )
    return config


def _load_weights(folder: Path, changes: dict[str, Any]) -> SeqRecPreTrainedModel:
    try:
        # Mismatched weights are refused below, with their names.
        model, report = AutoModel.from_pretrained(
            folder, output_loading_info=True, ignore_mismatched_sizes=True, **changes
        )
    except (OSError, SafetensorError) as error:
        raise ValueError(f"The weights in {folder} cannot be read, they are cut short or damaged: {error}") from error
    for kind, problem in (("missing_keys", "lack"), ("mismatched_keys", "do not fit the configuration in")):
        names = sorted(name if isinstance(name, str) else name[0] for name in report[kind])
        if names:
            raise ValueError(
                f"The weights in {folder} {problem} {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}, so the "
                "model would be partly random. Use config.json and model.safetensors of one checkpoint."
            )
    return model
