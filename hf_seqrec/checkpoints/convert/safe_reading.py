"""
Read what `torch.save` wrote, without running anything that the file asks for.

A bare state dict is read by `torch.load(weights_only=True)`. RecBole pickles its `Config` object beside the weights,
by a protocol that `weights_only` does not read: such a file goes through [`InertUnpickler`], which imports nothing and
makes nothing but plain data.
"""

import io
import pickle
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

# What else than pickle's own error a damaged or hostile pickle can raise.
_PICKLE_ERRORS = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
_EXPORT = (
    'where RecBole is installed, `checkpoint = torch.load(path)`, then `torch.save({"state_dict": '
    'checkpoint["state_dict"], "config": checkpoint["config"].final_config_dict}, "plain.pth")`, where the values of '
    "`config` must be numbers and texts, and convert plain.pth"
)


class SourceCheckpoint(NamedTuple):
    r"""
    What a checkpoint of somebody's code holds.

    Fields:
        weights (`dict[str, torch.Tensor]`): Under their authors' names.
        hyper_parameters (`dict[str, Any]`): Numbers and texts, under their authors' names; empty if there are none.
        item_ids (`list`, *optional*): Raw ids of the items, if the checkpoint has them.
    """

    weights: dict[str, Tensor]
    hyper_parameters: dict[str, Any]
    item_ids: list[Any] | None


def read_checkpoint(path: str | Path) -> SourceCheckpoint:
    r"""
    Read a state dict, RecBole's checkpoint, or a dict of `state_dict`, `config` and `item_ids`.

    Args:
        path (`str`): The `.pth` file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no checkpoint, is damaged, or asks for more than plain data and weights.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`source` must be a checkpoint that `torch.save` wrote, there is no file {path}.")
    loaded = _load(path)
    if not isinstance(loaded, dict):
        raise ValueError(
            f"{path} holds a {type(loaded).__name__}, expected the dict of a model's weights. Save "
            "`model.state_dict()` instead of the model."
        )
    weights = loaded.get("state_dict", loaded)
    if not isinstance(weights, dict) or not weights or not all(isinstance(w, Tensor) for w in weights.values()):
        raise ValueError(
            f"{path} holds no weights: expected names and tensors, or `state_dict` with them, found "
            f"{', '.join(str(key) for key in list(loaded)[:5]) or 'an empty dict'}. Save `model.state_dict()`."
        )
    hyper_parameters = loaded.get("config", {}) if weights is not loaded else {}
    if isinstance(hyper_parameters, _Inert):
        state = hyper_parameters.state if isinstance(hyper_parameters.state, dict) else {}
        hyper_parameters = state.get("final_config_dict", {})
    plain = {
        str(name): value
        for name, value in (hyper_parameters.items() if isinstance(hyper_parameters, dict) else ())
        if isinstance(value, (bool, int, float, str))
    }
    item_ids = loaded.get("item_ids") if weights is not loaded else None
    return SourceCheckpoint({str(name): weight for name, weight in weights.items()}, plain, item_ids)


def _load(path: Path) -> Any:
    """Tell what kind of file it is, and read it."""
    with path.open("rb") as file:
        head = file.read(9)
    if not head:
        raise ValueError(f"{path} is empty, expected a checkpoint that `torch.save` wrote. Copy the file again.")
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        raise ValueError(
            f"{path} is a safetensors file, expected the `.pth` that the authors' code wrote. Weights of this package "
            "need no conversion; for others, `torch.save` what `safetensors.torch.load_file` returns."
        )
    if head.startswith(b"PK\x03\x04"):
        return _load_archive(path)
    # Until torch 1.6, checkpoints were no archives but pickles, one after the other.
    if not head.startswith(b"\x80"):
        raise ValueError(f"{path} is not a checkpoint: `torch.save` does not write files that begin with {head!r}.")
    try:
        return _load_plain(path)
    except (RuntimeError, *_PICKLE_ERRORS) as error:
        raise ValueError(
            f"{path} is damaged, or holds more than weights, and nothing of it was run "
            f"({_first_line(error)}). If it is RecBole's: {_EXPORT}."
        ) from error


def _load_plain(path: Path) -> Any:
    with warnings.catch_warnings():
        # torch tells of a protocol that it might not be able to read.
        warnings.simplefilter("ignore", UserWarning)
        return torch.load(path, map_location="cpu", weights_only=True)


def _load_archive(path: Path) -> Any:
    try:
        archive = zipfile.ZipFile(path)
    except (NotImplementedError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is cut short or damaged ({error}). Copy the file again.") from error
    with archive:
        names = archive.namelist()
        pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl" and name.count("/") == 1]
        if len(pickles) != 1:
            raise ValueError(f"{path} is a zip archive, but not one that `torch.save` wrote: it has no data.pkl.")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in names:
            raise ValueError(f"{path} is a TorchScript program. Save `model.state_dict()` with `torch.save` instead.")
        try:
            return _load_plain(path)
        except pickle.UnpicklingError:
            # Not plain enough for torch: RecBole's, or one that wants to be refused with a better reason.
            return _load_inertly(path, archive, folder)
        except (RuntimeError, *_PICKLE_ERRORS) as error:
            raise ValueError(f"{path} is damaged ({_first_line(error)}). Copy the file again.") from error


def _load_inertly(path: Path, archive: zipfile.ZipFile, folder: str) -> Any:
    try:
        loaded = InertUnpickler(archive.read(f"{folder}data.pkl")).load()
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
            raise ValueError("it was written by a big-endian machine")
        if isinstance(loaded, dict):
            weights = loaded.get("state_dict", loaded)
            if isinstance(weights, dict):
                weights.update((name, _read_tensor(stored, archive, folder)) for name, stored in weights.items())
        return loaded
    except _Refused as refusal:
        raise ValueError(
            f"{path} asks for {refusal}, which conversion does not know; nothing of the file was run. If you trust "
            f"it: {_EXPORT}."
        ) from refusal
    except (RuntimeError, zipfile.BadZipFile, *_PICKLE_ERRORS) as error:
        raise ValueError(
            f"{path} is damaged, or no checkpoint ({_first_line(error)}). Copy the file again."
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


class _Refused(pickle.UnpicklingError):
    """The pickle names something that is not on the list."""


class _Inert:
    """Stands for an object of a class that is not there: takes whatever it is given, and does nothing."""

    state: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Ignore the arguments."""

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _StoredTensor(NamedTuple):
    """Where in the archive a tensor's numbers are; read only if somebody wants them."""

    dtype: torch.dtype
    key: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _Storage(NamedTuple):
    dtype: torch.dtype
    key: str


class _Rebuild:
    """Stands for torch's functions that make tensors; an object, as a pickle can set what it likes on a function."""

    def __call__(self, storage: Any, offset: Any, size: Any, stride: Any = (), *rest: Any) -> _StoredTensor:
        return _StoredTensor(storage.dtype, storage.key, offset, tuple(size), tuple(stride))

    def __setstate__(self, state: Any) -> None:
        raise _Refused("a state for a function")


class _RebuildParameter(_Rebuild):
    def __call__(self, data: Any, *rest: Any) -> _StoredTensor:
        return data


class _Dict(OrderedDict):
    """An `OrderedDict` without the notes that torch attaches to a state dict."""

    def __setstate__(self, state: Any) -> None:
        """Ignore the notes."""


def _read_tensor(stored: Any, archive: zipfile.ZipFile, folder: str) -> Any:
    if not isinstance(stored, _StoredTensor):
        return stored
    if 0 in stored.size:
        return torch.empty(stored.size, dtype=stored.dtype)
    data = bytearray(archive.read(f"{folder}data/{stored.key}"))
    if not data or len(data) % stored.dtype.itemsize:
        raise ValueError(f"{len(data)} bytes are no numbers of {stored.dtype}")
    return torch.frombuffer(data, dtype=stored.dtype).as_strided(stored.size, stored.stride, stored.offset).clone()


_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# What a pickle may name, and what it gets.
_KNOWN: dict[str, Any] = {
    "collections.OrderedDict": _Dict,
    "torch._utils._rebuild_tensor_v2": _Rebuild(),
    "torch._utils._rebuild_parameter": _RebuildParameter(),
    **{f"torch.{name}": dtype for name, dtype in _DTYPES.items()},
    # What RecBole's configuration and its best score are made of.
    "torch.device": _Inert,
    "yaml.loader.FullLoader": _Inert,
    # By which Python 3.11.0 to 3.11.3 name a member of an enumeration; it gets nothing here.
    "builtins.getattr": _Inert,
    "numpy.dtype": _Inert,
    "numpy.core.multiarray.scalar": _Inert,
    "numpy._core.multiarray.scalar": _Inert,
}
# The class of the model, which the configuration of RecBole names; authors have it in a file of their own.
_MODEL_CLASSES = {"BERT4Rec", "GRU4Rec", "MLSA4Rec", "Mamba4Rec", "SASRec"}


class InertUnpickler(pickle.Unpickler):
    r"""
    Unpickles to dicts, lists, numbers, texts and [`_StoredTensor`]s, and imports nothing.

    A pickle is a program that calls what it names. Here a name gives a stand-in of our own, if it is one that
    RecBole's checkpoints have, and else an error; so nothing can be called but these stand-ins.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Return what stands for a name in a pickle."""
        full_name = f"{module_name}.{global_name}"
        if full_name in _KNOWN:
            return _KNOWN[full_name]
        if module_name.startswith("recbole.") or global_name in _MODEL_CLASSES:
            return _Inert
        raise _Refused(f"`{full_name}`")

    def persistent_load(self, pid: Any) -> Any:
        """Return what stands for the numbers of a tensor."""
        kind, dtype, key = pid[:3]
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise _Refused(f"{pid!r}")
        return _Storage(dtype, str(key))
