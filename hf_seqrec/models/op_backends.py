"""Which faster implementation of an operation to use: looked up once in `hf_seqrec.ops`, the only way there."""

import functools
import os
from collections.abc import Callable
from typing import Any

import torch
from transformers.utils import logging

logger = logging.get_logger(__name__)


def wanted_backend(backend: str | None) -> str | None:
    """The backend that the environment insists on, or else the caller does; `None` for the best one."""
    return os.environ.get("HF_SEQREC_SCAN") or backend


# What the look-up below has found.
_FASTER_OPS: dict[str, Callable[..., Any]] = {}


def faster_op(name: str, device_type: str, backend: str | None = None) -> Callable[..., Any] | None:
    """
    Look `name` up, such as `"selective_scan"`, in `hf_seqrec.ops`; `None` where torch has to do.

    Raises:
        ValueError: if `backend` is named and cannot be used on the device.
    """
    key = _look_up(name, device_type, backend)
    return _FASTER_OPS[key] if key else None


# A key and not the function: of the two, torch.compile takes only the key for a constant.
@torch.compiler.assume_constant_result
def _look_up(name: str, device_type: str, backend: str | None) -> str:
    return _cached_look_up(name, device_type, backend)


@functools.cache
def _cached_look_up(name: str, device_type: str, backend: str | None) -> str:
    try:
        from hf_seqrec.ops import find_op
    except ModuleNotFoundError as error:  # loaded from the Hub, package not installed
        if backend is None:
            return ""
        raise ValueError(
            f"`scan_backend` and `HF_SEQREC_SCAN` must be 'reference' or 'chunked' where hf_seqrec is not installed, "
            f"got {backend!r}. Install hf_seqrec, or leave the choice to it."
        ) from error
    op = find_op(name, device_type, backend)
    # Once for each kind of device, as what is found is remembered.
    logger.info(f"{name} on {device_type}: {'torch alone' if op is None else op.__module__}.")
    if op is None:
        return ""
    key = f"{name} {device_type} {backend}"
    _FASTER_OPS[key] = op
    return key
