"""How torch tensors and their rows are handed to the kernels of `numba_kernels`, over a few threads."""

import collections
import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from .numba_kernels import WIDTH

# Below this many elements to visit, about 50 microseconds, waking a thread costs more than it saves.
_WORTH_A_THREAD = 2**18
# More shares than threads even out rows of different lengths.
_SHARES_PER_THREAD = 4

# First row, end of rows, first block of channels, end of blocks, address of scratch memory.
Share = tuple[int, int, int, int, int]


class Part(NamedTuple):
    """Which of the row ranges and of the block ranges a share has."""

    row: int
    block: int


class Shares:
    """
    A division of `(b, d)` into ranges of rows, and of blocks of channels where there are few rows.

    Args:
        b (`int`): Rows.
        d (`int`): Channels.
        work (`int`): Elements to visit; little work is not divided.
    """

    def __init__(self, b: int, d: int, work: int) -> None:
        self.b, self.blocks = b, -(-d // WIDTH)
        self.threads = torch.get_num_threads() if work >= _WORTH_A_THREAD else 1
        self.row_parts = self.block_parts = 1
        if self.threads > 1:
            self.row_parts = max(1, min(b, _SHARES_PER_THREAD * self.threads))
            if b < 2 * self.threads:
                self.block_parts = max(1, min(self.blocks, -(-2 * self.threads // max(b, 1))))

    def run(self, scratch_vectors: int, kernel: Callable[[Part, Share], None]) -> None:
        """Call `kernel` for each share, with scratch memory of its own, and wait for all; an error is raised."""
        parts = [Part(row, block) for row in range(self.row_parts) for block in range(self.block_parts)]
        scratch = torch.empty(len(parts), scratch_vectors * WIDTH)
        tasks = [functools.partial(kernel, part, self._share(part, scratch[i])) for i, part in enumerate(parts)]
        left = collections.deque(tasks)

        def work() -> None:
            while left:
                try:
                    task = left.popleft()
                except IndexError:  # another thread was faster
                    return
                task()

        # The calling thread is one of them.
        futures = [_executor(self.threads - 1).submit(work) for _ in range(self.threads - 1)]
        try:
            work()
        finally:
            for future in futures:
                future.result()

    def _share(self, part: Part, scratch: Tensor) -> Share:
        first_row, end_row = (self.b * i // self.row_parts for i in (part.row, part.row + 1))
        first_block, end_block = (self.blocks * i // self.block_parts for i in (part.block, part.block + 1))
        return first_row, end_row, first_block, end_block, scratch.data_ptr()


def readable(tensor: Tensor) -> Tensor:
    """The tensor itself if its channels are contiguous, as those of a chunk of a wider projection are; or a copy."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def operand(tensor: Tensor | None) -> tuple[int, int, int]:
    """Address of a `(b, l, channels)` tensor, bytes from row to row and from position to position."""
    if tensor is None:
        return 0, 0, 0
    assert tensor.dtype == torch.float32
    size = tensor.element_size()
    return tensor.data_ptr(), tensor.stride(0) * size, tensor.stride(1) * size


def address(tensor: Tensor | None) -> int:
    """Address of a contiguous tensor, 0 if there is none."""
    assert tensor is None or tensor.is_contiguous()
    return 0 if tensor is None else tensor.data_ptr()


_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_lock = threading.Lock()


def _executor(size: int) -> ThreadPoolExecutor:
    """
    The pool, made at the first use and again when torch's number of threads changes.

    Not numba's threads: its OpenMP layer kills a forked child, its own layer aborts under concurrent callers.
    """
    global _pool, _pool_size
    with _lock:
        if _pool is None or _pool_size != size:
            _pool, _pool_size = ThreadPoolExecutor(size, thread_name_prefix="hf_seqrec"), size
        return _pool


def _forget_pool() -> None:
    """Threads do not survive a fork, and one that is gone may have held the lock."""
    global _pool, _lock
    _pool, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
