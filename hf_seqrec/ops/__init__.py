"""
Faster ways to compute what `hf_seqrec.models` defines, one module per way and found at the first use.

A backend is a module with functions named and called as in `models/`: `selective_scan` and, if it has them,
`causal_conv1d`, `exp_and_sum` and `dropout`. To add one, write the module and give it a line in `_BACKENDS`.
"""

import functools
import importlib
import warnings
from collections.abc import Callable
from typing import NamedTuple


class _Backend(NamedTuple):
    device_type: str
    # Where each function lives.
    modules: dict[str, str]
    # Whether it is used without being named.
    is_faster: bool = True


# Tried in this order; a backend whose requirements are missing is passed over.
_BACKENDS = {
    "numba": _Backend(
        "cpu",
        {
            "selective_scan": "hf_seqrec.ops.numba_scan",
            "causal_conv1d": "hf_seqrec.ops.numba_conv",
            "exp_and_sum": "hf_seqrec.ops.numba_exp_and_sum",
            "dropout": "hf_seqrec.ops.numba_dropout",
        },
    ),
    "triton": _Backend(
        "cuda",
        {"selective_scan": "hf_seqrec.ops.triton_scan", "causal_conv1d": "hf_seqrec.ops.triton_conv"},
    ),
    "mamba_ssm": _Backend(
        "cuda",
        {"selective_scan": "hf_seqrec.ops.mamba_ssm_scan", "causal_conv1d": "hf_seqrec.ops.causal_conv1d_conv"},
    ),
    # For `hf_seqrec.checkpoints.export_onnx`.
    "onnx": _Backend("cpu", {"selective_scan": "hf_seqrec.ops.onnx_scan"}, is_faster=False),
}


def find_op(name: str, device_type: str, backend: str | None = None) -> Callable | None:
    """
    Return the fastest `name` for a kind of device, or `None` if torch is the only way there.

    Args:
        name (`str`): `"selective_scan"`, `"causal_conv1d"`, `"exp_and_sum"` or `"dropout"`.
        device_type (`str`): As in `torch.device.type`.
        backend (`str`, *optional*): Insist on this one.

    Raises:
        ValueError: if `backend` is unknown, made for another device, or lacks something it needs.
    """
    if backend is not None:
        return _insist(name, device_type, backend)
    for candidate, (serves, modules, is_faster) in _BACKENDS.items():
        fits = is_faster and serves == device_type and name in modules
        if fits and _why_unavailable(candidate, name) is None:
            return getattr(importlib.import_module(modules[name]), name)
    return None


def _insist(name: str, device_type: str, backend: str) -> Callable | None:
    if backend not in _BACKENDS:
        known = ", ".join(["reference", "chunked", *_BACKENDS])
        raise ValueError(f"`scan_backend` and `HF_SEQREC_SCAN` must be one of {known}, got {backend!r}.")
    serves, modules, _ = _BACKENDS[backend]
    if serves != device_type:
        raise ValueError(
            f"The scan backend {backend!r} computes on {serves}, got tensors on {device_type}. "
            "Unset `scan_backend` and `HF_SEQREC_SCAN` to let the device decide."
        )
    if name not in modules:
        return None
    reason = _why_unavailable(backend, name)
    if reason is not None:
        raise ValueError(
            f"The scan backend {backend!r} cannot be used here: {reason}. Install what is missing, or unset "
            "`scan_backend` and `HF_SEQREC_SCAN`."
        )
    return getattr(importlib.import_module(modules[name]), name)


@functools.cache
def _why_unavailable(backend: str, name: str) -> str | None:
    try:
        importlib.import_module(_BACKENDS[backend].modules[name])
    except ImportError as error:
        if "NUMBA_DISABLE_JIT" in str(error):
            _warn_once("NUMBA_DISABLE_JIT is set, so torch computes what numba would, more slowly.")
        return str(error)
    return None


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(message, stacklevel=2)
