"""What a run trains on and is evaluated on, in memory or streamed."""

from .arguments import RunArguments
from .data.resolve import resolve_dataset, resolve_folder
from .data.sequences import Sequences
from .data.splits import LeaveOneOut
from .data.streaming import StreamedHistories, StreamedLeaveOneOut, streamed_leave_one_out
from .data.time_split import GlobalTimeSplit

Splits = LeaveOneOut | GlobalTimeSplit | StreamedLeaveOneOut


def load_run_data(arguments: RunArguments) -> tuple[Sequences, Splits]:
    r"""
    Load the dataset, built first where it is a log, and hold out what the arguments say.

    With `streaming` the sequences are those of the users who are evaluated; the others are read as they are trained
    on. With several processes let the main one go first: it builds.

    Args:
        arguments ([`RunArguments`]): What was asked for.

    Raises:
        FileNotFoundError: if there is no such dataset.
        ValueError: if it is damaged, or leaves nothing to train on or to evaluate.
    """
    data, args = arguments.data, arguments.training
    if not args.streaming:
        with_times = data.split == "global_time"
        sequences = resolve_dataset(data.dataset, args.output_dir, timestamps=with_times, **data.log_options())
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
