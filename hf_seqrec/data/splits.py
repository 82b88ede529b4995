"""What the ways to hold something out have in common: `train`, `validation`, `test`, `protocol` and `counts`."""

from .global_time_split import GlobalTimeSplit
from .leave_one_out import LeaveOneOut
from .streaming import StreamedLeaveOneOut

Splits = LeaveOneOut | GlobalTimeSplit | StreamedLeaveOneOut
