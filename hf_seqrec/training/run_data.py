"""What a run trains on and is evaluated on, in memory or streamed."""

import dataclasses

from ..data.catalog import Catalog
from ..data.catalog_change import change_of_catalog
from ..data.global_time_split import GlobalTimeSplit
from ..data.leave_one_out import LeaveOneOut
from ..data.sequences import Sequences
from ..data.streaming import StreamedHistories, StreamedLeaveOneOut, streamed_leave_one_out
from ..ingest.open_dataset import resolve_dataset, resolve_folder
from .run_arguments import RunArguments

Splits = LeaveOneOut | GlobalTimeSplit | StreamedLeaveOneOut


def load_run_data(arguments: RunArguments, keep_items_of: Catalog | None = None) -> tuple[Sequences, Splits]:
    r"""
    Load the dataset, built first where it is a log, and hold out what the arguments say.

    With `streaming` the sequences are those of the users who are evaluated; the others are read as they are trained
    on. With several processes let the main one go first: it builds.

    Args:
        arguments ([`RunArguments`]): What was asked for.
        keep_items_of ([`Catalog`], *optional*): Append the items of this catalog that the dataset does not have, so
            that a model which knows them keeps them. Not with `streaming`.

    Raises:
        FileNotFoundError: if there is no such dataset.
        ValueError: if it shares no item with `keep_items_of`, is damaged, or leaves nothing to train on or to
            evaluate.
    """
    data, args = arguments.data, arguments.training
    if not args.streaming:
        with_times = data.split == "global_time"
        sequences = resolve_dataset(data.dataset, args.output_dir, timestamps=with_times, **data.log_options())
        if keep_items_of is not None:
            change = change_of_catalog(keep_items_of, sequences.catalog, keep_vanished=True)
            sequences = dataclasses.replace(sequences, catalog=change.catalog)
        return sequences, data.cut(sequences)
    stream = StreamedHistories(
        resolve_folder(data.dataset, args.output_dir, **data.log_options()),
        args.train_batch_size,
        args.max_length,
        args.window,
        args.window_stride,
        seed=args.seed if args.data_seed is None else args.data_seed,
        buffer_size=args.streaming_buffer_size,
        rank=args.process_index,
        world_size=args.world_size,
        num_workers=args.dataloader_num_workers,
    )
    splits = streamed_leave_one_out(stream, args.streaming_eval_users)
    return splits.test.sequences, splits
