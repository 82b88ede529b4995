r"""
Sessions in a safetensors file, with the mark of the model that they belong to.

The header's metadata say the format, the model's type, fingerprint and commit, the catalog's fingerprint, and a
checksum of everything in the file. The checksum finds damage; it is no signature, so take files from nobody else.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..data.catalog import Catalog
from ..models.modeling_seqrec import SeqRecPreTrainedModel

# With another number, the states of the models are stored differently.
_FORMAT = "hf_seqrec sessions 2"
# Fields of a configuration that say nothing about what a model computes.
_NOT_THE_NETWORK = ("transformers_version", "auto_map", "architectures", "use_cache", "dtype", "_name_or_path")


def model_fingerprint(model: SeqRecPreTrainedModel) -> str:
    """Return a hash, in hexadecimal, of the weights and of the configuration of the network."""
    fields = {name: value for name, value in model.config.to_diff_dict().items() if name not in _NOT_THE_NETWORK}
    return _checksum(model.state_dict(), fields)


class Fingerprints(NamedTuple):
    r"""
    Which model and catalog sessions belong to.

    Fields:
        model_type (`str`): Such as `"gru4rec"`.
        model (`str`): See [`model_fingerprint`].
        revision (`str`): Commit on the Hub that the model came from, or empty.
        catalog (`str`): `catalog.fingerprint()`.
    """

    model_type: str
    model: str
    revision: str
    catalog: str

    @classmethod
    def compute(cls, model: SeqRecPreTrainedModel, catalog: Catalog) -> "Fingerprints":
        """Hash a model and its catalog."""
        return cls(
            model_type=model.config.model_type,
            model=model_fingerprint(model),
            revision=getattr(model.config, "_commit_hash", None) or "",
            catalog=catalog.fingerprint(),
        )


def write_sessions(
    path: str | Path, fingerprints: Fingerprints, users: list[str], tensors: dict[str, Tensor], seen_limit: int | None
) -> None:
    r"""
    Write the tensors of all users, whole or not at all.

    Args:
        path (`str`): The file; its folder must exist.
        fingerprints ([`Fingerprints`]): Those of the sessions' model and catalog.
        users (`list[str]`): Their ids, the least recently used first.
        tensors (`dict[str, torch.Tensor]`): `(len(users), ...)` each.
        seen_limit (`int`, *optional*): What the [`SessionStore`] was made with.
    """
    # Ids are a tensor, because safetensors' header is limited in size.
    ids = torch.from_numpy(np.frombuffer(json.dumps(users).encode(), dtype=np.uint8).copy())
    tensors = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()} | {"users": ids}
    metadata = {"format": _FORMAT, **fingerprints._asdict(), "seen_limit": json.dumps(seen_limit)}
    metadata["checksum"] = _checksum(tensors, metadata)
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(tensors, part, metadata)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_sessions(
    path: str | Path, fingerprints: Fingerprints, seen_limit: int | None
) -> tuple[list[str], dict[str, Tensor]]:
    r"""
    Read what `write_sessions` has written: the users' ids, and the tensors.

    Args:
        path (`str`): The file.
        fingerprints ([`Fingerprints`]): Those of the model and the catalog that shall go on with the sessions.
        seen_limit (`int`, *optional*): What the [`SessionStore`] was made with.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is no session file, is cut short or altered, belongs to another model, other weights or
            another catalog, or was saved with another `seen_limit`.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no session file {path}. `SessionStore.save` writes one.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise ValueError(
                    f"{path} is no file of sessions of this version: its format is {metadata.get('format')!r}, "
                    f"expected {_FORMAT!r}. Pass what `SessionStore.save` has written."
                )
            _check_belongs(path, metadata, fingerprints, seen_limit)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no dict
    except SafetensorError as error:
        raise ValueError(
            f"{path} cannot be read, it is cut short or damaged: {error}. Start without it: sessions begin again from "
            "the users' histories."
        ) from error
    checksum = metadata.pop("checksum", None)
    if checksum != _checksum(tensors, metadata):
        raise ValueError(
            f"{path} was altered after it was saved: its checksum is not that of its content. Start without it: "
            "sessions begin again from the users' histories."
        )
    users: list[str] = json.loads(tensors.pop("users").numpy().tobytes())
    return users, tensors


def _check_belongs(
    path: str | Path, metadata: dict[str, str], fingerprints: Fingerprints, seen_limit: int | None
) -> None:
    expected = fingerprints._asdict()
    for name, what in (
        ("model_type", "another type of model"),
        ("model", "other weights"),
        ("catalog", "another catalog"),
    ):
        if metadata.get(name) != expected[name]:
            of = f", of revision {metadata['revision']}" if metadata.get("revision") else ""
            raise ValueError(
                f"{path} holds the sessions of {what} ({metadata.get(name)}{of}) than this one ({expected[name]}). "
                "States of one model mean nothing to another: restore them with the checkpoint that they were saved "
                "from, or begin again from the users' histories."
            )
    if metadata.get("seen_limit") != json.dumps(seen_limit):
        raise ValueError(
            f"{path} was saved with `seen_limit={metadata.get('seen_limit')}`, but here it is {seen_limit}. Make the "
            "store with the `seen_limit` of the file."
        )


def _checksum(tensors: dict[str, Tensor], fields: dict[str, str]) -> str:
    """Hash names, types, shapes and bytes of tensors, and what is said beside them."""
    digest = hashlib.blake2b(json.dumps(fields, sort_keys=True).encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous().cpu()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
