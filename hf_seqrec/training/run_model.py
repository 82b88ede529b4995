"""The model that a run trains: a new one, or that of a checkpoint, carried over to the run's catalog."""

from transformers import AutoModel

from ..checkpoints.adapt import apply_change, freeze_encoder
from ..checkpoints.load import Checkpoint, load_checkpoint
from ..data.catalog import Catalog
from ..data.catalog_change import change_of_catalog
from ..data.histories import HistoryDataset
from ..data.splits import Splits
from ..models import config_class
from ..models.modeling_seqrec import SeqRecPreTrainedModel
from .run_arguments import RunArguments


def load_start(arguments: RunArguments) -> Checkpoint | None:
    """Load the checkpoint that a run goes on from, with the fields that the run changes; `None`: from scratch."""
    model = arguments.model
    if model.model_name_or_path is None:
        return None
    return load_checkpoint(model.model_name_or_path, model.model_revision, **arguments.network)


def make_run_model(
    arguments: RunArguments, start: Checkpoint | None, catalog: Catalog, splits: Splits
) -> tuple[SeqRecPreTrainedModel, str]:
    r"""
    Return the model that a run trains, and where it comes from in words.

    Args:
        arguments ([`RunArguments`]): What was asked for.
        start ([`Checkpoint`], *optional*): What to go on from, as [`load_start`] returns it; changed in place.
        catalog ([`Catalog`]): What the rows of the run's histories stand for.
        splits: What is trained on, as [`~hf_seqrec.training.run_data.load_run_data`] returns it.

    Raises:
        ValueError: if the checkpoint and the catalog share no item.
    """
    if start is None:
        config_cls = config_class(arguments.model.model_type)
        config = config_cls(
            vocab_size=config_cls.vocab_size_for(catalog.n_items),
            catalog_fingerprint=catalog.fingerprint(),
            **arguments.network,
        )
        return AutoModel.from_config(config), "from scratch"
    asked = arguments.model
    assert asked.new_items is not None  # the arguments have chosen a rule
    change = change_of_catalog(start.catalog, catalog)
    histories = splits.train if isinstance(splits.train, HistoryDataset) else None
    apply_change(start.model, change, asked.new_items, histories, arguments.training.seed)
    if asked.freeze_encoder:
        freeze_encoder(start.model)
    rule = f" and start from `{asked.new_items}`" if change.n_new else ""
    return start.model, (
        f"from {asked.model_name_or_path}: {change.n_known:,} of its {change.n_old:,} items are in the catalog, "
        f"{change.n_new:,} items are new{rule}" + (", the encoder is frozen" if asked.freeze_encoder else "")
    )
