"""Dropout whose masks cost less on a CPU."""

import torch
from torch import Tensor, nn

from .op_backends import faster_op, wanted_backend

# Values of the 16-bit integers that decide: a rate is rounded to a multiple of 1 / 65,536.
_VALUES = 2**16


class Dropout(nn.Dropout):
    """
    `torch.nn.Dropout`, except that on a CPU one draw of torch's generator is good for more than one decision.

    torch draws a number for each element there, on one thread: an eighth of Mamba4Rec's training step on ML-1M. A
    backend of `hf_seqrec.ops` makes all decisions of a call from one draw; without, four share a 64-bit draw. The same
    seed gives the same masks, and the mean is kept exactly: the scale belongs to the rounded rate.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Zero elements at random while training, and scale the others up."""
        if not self.training or not 0 < self.p < 1 or input.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(input)
        # Of the scan's backends numba's alone has it; who insists on another gets torch's draws.
        if wanted_backend(None) in (None, "numba") and input.dtype in (torch.float32, torch.bfloat16):
            faster = faster_op("dropout", "cpu")
            if faster is not None:
                return faster(input, self.p)
        dropped_values = round(self.p * _VALUES)
        n = input.numel()
        draws = torch.empty(-(-n // 4), dtype=torch.int64).random_(-(2**63), None)
        keep = draws.view(torch.int16)[:n].view(input.shape) >= dropped_values - _VALUES // 2
        return input * keep.to(input.dtype).mul_(_VALUES / (_VALUES - dropped_values))
