"""What a run trains on and is evaluated on, in memory or streamed."""

import dataclasses
from pathlib import Path
from typing import Any

from ..data.catalog import Catalog
from ..data.catalog_change import change_of_catalog
from ..data.sequences import Sequences
from ..data.splits import Splits
from ..data.streaming import StreamedHistories, streamed_leave_one_out
from ..ingest.open_dataset import resolve_dataset, resolve_folder
from .run_arguments import RunArguments
from .run_folder import checkpoint_to_resume
from .run_record import check_same_data, data_identity, record_data, recorded_data


def load_run_data(arguments: RunArguments, keep_items_of: Catalog | None = None) -> tuple[Sequences, Splits]:
    r"""
    Load the dataset, built first where it is a log, and hold out what the arguments say.

    With `streaming` the sequences are those of the users who are evaluated; the others are read as they are trained
    on. With several processes let the main one go first: it builds.

    Args:
        arguments ([`RunArguments`]): What was asked for.
        keep_items_of ([`Catalog`], *optional*): Append the items of this catalog that the dataset does not have, so
            that a model which knows them keeps them. Not with `streaming`.

    A run that is resumed gets the data that it was trained on, or an error: with others, rows would stand for other
    items. Where its log has changed, the dataset that was built from it stays as it is.

    Raises:
        FileNotFoundError: if there is no such dataset.
        ValueError: if it shares no item with `keep_items_of`, is damaged, leaves nothing to train on or to evaluate,
            or is not what the checkpoint to resume from was trained on.
    """
    data, args = arguments.data, arguments.training
    checkpoint = checkpoint_to_resume(args.output_dir, args.resume_from_checkpoint)

    def check(folder: Path) -> None:
        """Refuse what was built from a log that has changed before it takes the place of what is there."""
        if checkpoint is not None:
            check_same_data(checkpoint, recorded_data(checkpoint), _identity(*_load(arguments, folder, keep_items_of)))

    folder = resolve_folder(data.dataset, args.output_dir, check=check, **data.log_options())
    sequences, splits = _load(arguments, folder, keep_items_of)
    found = _identity(sequences, splits)
    if checkpoint is not None:
        check_same_data(checkpoint, recorded_data(checkpoint), found)
    if args.process_index == 0:
        record_data(args.output_dir, found)
    return sequences, splits


def _identity(sequences: Sequences, splits: Splits) -> dict[str, Any]:
    return data_identity(sequences.catalog, splits.train, splits.validation, splits.protocol)


def _load(arguments: RunArguments, folder: str | Path, keep_items_of: Catalog | None) -> tuple[Sequences, Splits]:
    """Load a dataset folder, or one of the Hub, and hold out what the arguments say."""
    data, args = arguments.data, arguments.training
    if not args.streaming:
        with_times = data.split == "global_time"
        sequences = resolve_dataset(folder, args.output_dir, timestamps=with_times)
        if keep_items_of is not None:
            change = change_of_catalog(keep_items_of, sequences.catalog, keep_vanished=True)
            sequences = dataclasses.replace(sequences, catalog=change.catalog)
        return sequences, data.cut(sequences)
    stream = StreamedHistories(
        folder,
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
