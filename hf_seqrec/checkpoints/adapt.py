"""
Carry a trained model over to another catalog, without training: items with the same raw id keep what was learned.

    hf-seqrec adapt runs/my-shop --catalog data/my-shop --output runs/my-shop-today
    hf-seqrec adapt org/model --catalog data/my-shop --output start --new_items cooccurrence

The catalogs are compared by raw id (`change_of_catalog`), and every parameter that has a row for each item is made
anew (`apply_change`): known items bring their row, new ones start from a rule. The encoder stays as it is.

Rules for new items:
- `mean`: the mean of all items that the model knows. Not scaled up to the length that an item's embedding typically
  has: in a history it would then say something, and what it says would be wrong.
- `cooccurrence`: the mean of the known items next to which an item stands in the histories, a little shorter than an
  item's embedding typically is. The more often beside it, the more an item counts, and the less, the more often it is
  anywhere. An item without known neighbours starts as with `mean`.
- `random`: drawn from a normal distribution with the mean and the spread of the known items in each channel.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..data.catalog import Catalog
from ..data.catalog_change import CatalogChange, change_of_catalog
from ..data.histories import HistoryDataset
from ..data.leave_one_out import leave_one_out
from ..data.sequences import load_sequences
from ..models.modeling_seqrec import SeqRecPreTrainedModel
from ..replacing_folder import check_new, replacing_folder
from .card import write_model_card
from .load import checkpoint_folder, load_checkpoint

NEW_ITEMS = ("mean", "cooccurrence", "random")

# How far apart two events of a history may be to count as neighbours.
_NEIGHBOURHOOD = 5
# Length of what `cooccurrence` makes, of the median length. At 1 the new items, which nobody has taught to stay away
# from any history, displace the known ones: on MovieLens-1M, with a fifth of its items taken for new and nothing
# trained, they were up to 58 % of what is recommended; at 0.8 a Mamba or BERT4Rec recommends hardly any.
_LENGTH = 0.9


@torch.no_grad()
def apply_change(
    model: SeqRecPreTrainedModel,
    change: CatalogChange,
    new_items: str = "mean",
    histories: HistoryDataset | None = None,
    seed: int = 0,
) -> None:
    r"""
    Give a model the items of another catalog, in place.

    Args:
        model ([`SeqRecPreTrainedModel`]): A model with the items of the old catalog.
        change ([`CatalogChange`]): What [`change_of_catalog`] found.
        new_items (`str`, *optional*, defaults to `"mean"`): What new items start from: `"mean"`, `"cooccurrence"` or
            `"random"`, see the top of this file.
        histories ([`HistoryDataset`], *optional*): For `"cooccurrence"`: training histories in the rows of the new
            catalog. What is held out for evaluation must not be in them.
        seed (`int`, *optional*, defaults to 0): Of `"random"`.

    Raises:
        ValueError: if the rule is unknown, the old catalog is not the model's, or
            `"cooccurrence"` has no histories.
    """
    if new_items not in NEW_ITEMS:
        raise ValueError(f"`new_items` must be one of {', '.join(NEW_ITEMS)}, got {new_items!r}.")
    if model.config.n_items != change.n_old:
        raise ValueError(
            f"The old catalog has {change.n_old:,} items, but the model has {model.config.n_items:,}. Pass the "
            "catalog that was saved with the model."
        )
    if model.config.catalog_fingerprint not in (None, change.old_fingerprint):
        raise ValueError(
            f"The old catalog (fingerprint {change.old_fingerprint}) is not the model's "
            f"({model.config.catalog_fingerprint}): it has other items, or another order. Pass the catalog that was "
            "saved with the model."
        )
    is_new = change.old_rows == 0
    neighbours = None
    if new_items == "cooccurrence" and is_new.any():
        if histories is None:
            raise ValueError(
                "`histories` must be given with `new_items='cooccurrence'`: training histories in the rows of the new "
                "catalog, such as `leave_one_out(sequences).train`."
            )
        neighbours = _neighbours(histories, change.old_rows, change.n_old)
    generator = torch.Generator().manual_seed(seed)
    tables = {}
    for name, table in model.item_tables().items():
        known = table[1 : 1 + change.n_old].detach().cpu().float()
        values = known[torch.from_numpy(np.maximum(change.old_rows - 1, 0))]
        values[torch.from_numpy(is_new)] = _initial_values(known, int(is_new.sum()), new_items, neighbours, generator)
        tables[name] = values
    model.replace_items(tables)
    model.config.catalog_fingerprint = change.catalog.fingerprint()


def _initial_values(
    known: Tensor, n_new: int, rule: str, neighbours: Tensor | None, generator: torch.Generator
) -> Tensor:
    """Make rows for new items, `(n_new, ...)`, from those of the known ones, `(n_old, ...)`."""
    mean = known.mean(dim=0)
    if rule == "random":
        spread = known.std(dim=0, unbiased=False)
        return mean + spread * torch.randn((n_new, *known.shape[1:]), generator=generator)
    values = mean.expand(n_new, *known.shape[1:]).clone()
    if neighbours is not None:
        has_some = torch.zeros(n_new, dtype=torch.bool)
        has_some[neighbours.indices()[0]] = True
        beside = torch.sparse.mm(neighbours, known.flatten(1) if known.dim() > 1 else known[:, None])[has_some]
        if known.dim() > 1:
            # A mean of vectors that point in many directions is much shorter than any of them.
            beside *= _LENGTH * known.flatten(1).norm(dim=1).median() / beside.norm(dim=1, keepdim=True)
        values[has_some] = beside.view(-1, *known.shape[1:])
    return values


def _neighbours(histories: HistoryDataset, old_rows: npt.NDArray[np.int64], n_old: int) -> Tensor:
    """Return how much each known item counts for each new one: `(n_new, n_old)`, sparse, rows of sum 1 or empty."""
    rows, owners = histories.events()
    if len(rows) and rows.max() > len(old_rows):
        raise ValueError(
            f"`histories` must be in the rows 1..{len(old_rows)} of the new catalog, got row {rows.max()}."
        )
    # The place among the new items or among the old ones; -1: it is of the other kind.
    new_place = np.where(old_rows == 0, np.cumsum(old_rows == 0) - 1, -1)[rows - 1]
    old_place = old_rows[rows - 1] - 1
    pairs = np.zeros(0, dtype=np.int64)
    counts = np.zeros(0, dtype=np.int64)
    for new, old in _beside(new_place, old_place, owners):
        found, how_often = np.unique(new * n_old + old, return_counts=True)
        pairs, places = np.unique(np.concatenate([pairs, found]), return_inverse=True)
        counts = np.bincount(places, weights=np.concatenate([counts, how_often]), minlength=len(pairs))
    new, old = np.divmod(pairs, n_old)
    frequency = np.bincount(old_place[old_place >= 0], minlength=n_old)
    weights = counts / np.sqrt(frequency[old])
    n_new = int((old_rows == 0).sum())
    weights /= np.bincount(new, weights=weights, minlength=n_new)[new]
    indices = torch.from_numpy(np.stack([new, old]))
    values = torch.from_numpy(weights).float()
    return torch.sparse_coo_tensor(indices, values, (n_new, n_old), check_invariants=True, is_coalesced=True)


def _beside(
    new_place: npt.NDArray[np.int64], old_place: npt.NDArray[np.int64], owners: npt.NDArray[np.int64]
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yield new items and the known ones that stand beside them, distance by distance, before and after."""
    for distance in range(1, _NEIGHBOURHOOD + 1):
        same = owners[:-distance] == owners[distance:]
        for first, second in (
            (slice(None, -distance), slice(distance, None)),
            (slice(distance, None), slice(None, -distance)),
        ):
            chosen = same & (new_place[first] >= 0) & (old_place[second] >= 0)
            yield new_place[first][chosen], old_place[second][chosen]


def freeze_encoder(model: SeqRecPreTrainedModel) -> None:
    """Let training change nothing but what the model has for each item: the embedding, BERT4Rec's bias."""
    tables = {id(table) for table in model.item_tables().values()}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in tables)


def adapt_to_catalog(
    model: SeqRecPreTrainedModel,
    old_catalog: Catalog,
    new_catalog: Catalog,
    new_items: str = "mean",
    keep_vanished: bool = False,
    histories: HistoryDataset | None = None,
    seed: int = 0,
) -> CatalogChange:
    r"""
    Carry a model over to another catalog, in place, and return what became of the items.

    Items with the same raw id keep their embedding, and whatever else the model has for each item (BERT4Rec's bias).

    Args:
        model ([`SeqRecPreTrainedModel`]): The model.
        old_catalog, new_catalog ([`Catalog`]): What its rows stand for now, and shall stand for.
        new_items (`str`, *optional*, defaults to `"mean"`): What new items start from, see [`apply_change`].
        keep_vanished (`bool`, *optional*, defaults to `False`): Keep items that the new catalog does not have, behind
            its own.
        histories ([`HistoryDataset`], *optional*): Training histories, for `"cooccurrence"`.
        seed (`int`, *optional*, defaults to 0): Of `"random"`.

    Raises:
        ValueError: if the catalogs share no item, `old_catalog` is not the model's, the rule is unknown, or it has no
            histories.

    Example:

    ```python
    >>> old, new = Catalog.from_pretrained("runs/ml-1m"), Catalog.from_pretrained("data/my-shop")
    >>> change = adapt_to_catalog(model, old, new)
    >>> model.save_pretrained("start")
    >>> change.catalog.save("start")
    ```
    """
    change = change_of_catalog(old_catalog, new_catalog, keep_vanished)
    apply_change(model, change, new_items, histories, seed)
    return change


def adapt_checkpoint(
    checkpoint: str | Path,
    dataset: str | Path,
    output: str | Path,
    new_items: str = "mean",
    keep_vanished: bool = False,
    held_out: bool = False,
    seed: int = 0,
    revision: str | None = None,
) -> CatalogChange:
    r"""
    Write a checkpoint of the same model with the catalog of a dataset folder, and return what became of the items.

    Args:
        checkpoint (`str`): A checkpoint folder or the id of a model on the Hub.
        dataset (`str`): A dataset folder, or the id of one on the Hub. Of its histories only `"cooccurrence"` takes
            notice.
        output (`str`): The folder to write; new or empty. It appears when it is complete.
        new_items, keep_vanished, seed: See [`adapt_to_catalog`].
        held_out (`bool`, *optional*, defaults to `False`): For `"cooccurrence"`, look at the training part of
            leave-one-out alone, so that the result can be evaluated on the rest.
        revision (`str`, *optional*): Branch, tag or commit of the checkpoint on the Hub.

    Raises:
        FileExistsError: if there is something at `output`.
        FileNotFoundError: if there is no such dataset.
        ValueError: if the checkpoint is damaged or of another kind of model, or the catalogs share no item.
    """
    output = Path(output)
    check_new(output)
    folder = checkpoint_folder(checkpoint, revision)
    model, old = load_checkpoint(folder)
    histories = None
    if new_items == "cooccurrence":
        sequences = load_sequences(dataset)
        new = sequences.catalog
        offsets = sequences.offsets
        histories = HistoryDataset(sequences, np.arange(len(sequences)), offsets[:-1], offsets[1:], has_targets=False)
        if held_out:
            histories = leave_one_out(sequences).train
    else:
        new = Catalog.from_pretrained(dataset, repo_type="dataset")
    change = adapt_to_catalog(model, old, new, new_items, keep_vanished, histories, seed)
    said = {
        "checkpoint": str(checkpoint),
        "n_known": change.n_known,
        "n_new": change.n_new,
        "n_vanished": change.n_vanished,
        "n_kept_vanished": change.n_kept_vanished,
        "new_items": new_items,
        "seed": seed,
    }
    _write(model, change.catalog, output, folder / "training_args.json", said)
    return change


def _write(
    model: SeqRecPreTrainedModel, catalog: Catalog, output: Path, trained_with: Path, said: dict[str, Any]
) -> None:
    """Write a checkpoint folder, whole or not at all."""
    with replacing_folder(output) as folder:
        model.save_pretrained(folder)
        catalog.save(folder)
        # What was measured of the old catalog does not hold for the new one.
        write_model_card(folder, model.config, None)
        if trained_with.is_file():
            # The length of the histories that the encoder was trained with is in it.
            shutil.copy(trained_with, folder)
        (folder / "adaptation.json").write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
