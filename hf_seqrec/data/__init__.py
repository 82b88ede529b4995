"""
From a raw log to batches.

One user's clicks pass through these files in this order: `raw_files`, `text_files` and `json_records` (what is there),
`columns`, `raw_ids`, `raw_times` and `history_rows` (what it means), `interactions` (read and check), `encoding`
(ids to numbers), `filters` (repeats, k-core), `build` and `catalog` (raw id <-> row), `sequence_files` and
`dataset_folder` (oldest first, Parquet), `sequences`, `splits` or `time_split` (what is held
out), `windows` or `prefixes` (samples), `samplers` (order), `collators` (batch), `negatives` (what to learn against).
"""

import importlib
from typing import Any

# Loaded at first use: building needs Ibis and DuckDB, batches need torch, a catalog neither.
_WHERE = {
    "Catalog": "catalog",
    "Sequences": "sequences",
    "load_sequences": "sequences",
    "HistoryBatch": "splits",
    "HistoryDataset": "splits",
    "LeaveOneOut": "splits",
    "ShuffledSampler": "samplers",
    "LengthGroupedSampler": "samplers",
    "leave_one_out": "splits",
    "GlobalTimeSplit": "time_split",
    "global_time_split": "time_split",
    "sliding_windows": "windows",
    "StreamedHistories": "streaming",
    "streamed_leave_one_out": "streaming",
    "NextItemCollator": "collators",
    "NegativesCollator": "negatives",
    "every_prefix": "prefixes",
    "RankingCollator": "collators",
    "popularity_baseline": "baselines",
    "build_synthetic": "synthetic",
    "InteractionsArguments": "interactions",
    "BuildArguments": "build",
    "build_dataset": "build",
    "extend_dataset": "extend",
    "About": "dataset_card",
    "RawFile": "raw_files",
    "resolve_dataset": "resolve",
}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
