"""What every Triton launch needs: checks on dtypes and strides, the device, its size."""

import functools
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def check_dtypes(**tensors: Tensor | None) -> None:
    for name, tensor in tensors.items():
        if tensor is not None and tensor.dtype not in _DTYPES:
            raise TypeError(
                f"`{name}` must be float32, bfloat16 or float16, got {tensor.dtype}. "
                "Cast it, or set HF_SEQREC_SCAN=chunked."
            )


def contiguous_rows(tensor: Tensor) -> Tensor:
    """The tensor, copied only if its last axis is not contiguous."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def strides(**tensors: Tensor) -> dict[str, int]:
    """The first two strides of each `(b, l, ...)` tensor, as `name_b` and `name_l`."""
    return {f"{name}_{axis}": tensor.stride(i) for name, tensor in tensors.items() for i, axis in enumerate("bl")}


def on(tensor: Tensor) -> AbstractContextManager:
    """Launch on the tensor's device, which need not be the current one."""
    return torch.cuda.device(tensor.device) if tensor.device.type == "cuda" else nullcontext()


@functools.cache
def processors(device: torch.device) -> int:
    """Streaming multiprocessors of a GPU; one for the interpreter on a CPU."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
