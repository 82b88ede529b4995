"""From a checkpoint of somebody's code to a checkpoint folder of this package."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...data.catalog import CATALOG_FILE, Catalog
from ...models import model_class
from ...models.modeling_seqrec import SeqRecPreTrainedModel
from ...replacing_folder import replacing_folder
from ..card import CARD_FILE, write_model_card
from .configuration import KnownField, configure, noted_beside
from .item_ids import make_catalog, read_catalog
from .safe_reading import SourceCheckpoint, read_checkpoint
from .sources import Source, find_source

_ITEMS = "item_embeddings.weight"
_NO_CATALOG = (
    f"No {CATALOG_FILE} was written: the checkpoint does not say which raw item id stands at which row. So the model "
    "answers in rows only. Convert again with --item_ids and a file of the raw ids, one for each row from 1 on "
    '(RecBole: `dataset.field2id_token["item_id"]`), or with --item_ids rows if the ids are the rows\' numbers.'
)


class MovedWeight(NamedTuple):
    """One weight of the source, what became of it, and what was left out of it."""

    theirs: str
    ours: tuple[str, ...]
    shape: tuple[int, ...]
    note: str


@dataclass(frozen=True)
class Conversion:
    r"""
    What [`convert_checkpoint`] did.

    Fields:
        folder (`Path`): The checkpoint folder.
        model ([`SeqRecPreTrainedModel`]): The model, in evaluation mode.
        catalog ([`Catalog`], *optional*): The item mapping, if it is known.
        source ([`Source`]): Whose checkpoint it was.
        moved (`list[MovedWeight]`): What became of every weight.
        fields (`dict[str, KnownField]`): The configuration's fields, and how each is known.
    """

    folder: Path
    model: SeqRecPreTrainedModel
    catalog: Catalog | None
    source: Source
    moved: list[MovedWeight]
    fields: dict[str, KnownField]

    def __str__(self) -> str:
        rows = [("theirs", "shape", "ours")]
        for weight in self.moved:
            targets = weight.ours or ("left out",)
            note = f" ({weight.note})" if weight.note else ""
            rows.append((weight.theirs, "x".join(map(str, weight.shape)), ", ".join(targets) + note))
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        table = [f"{theirs:{widths[0]}}  {shape:{widths[1]}}  {ours}" for theirs, shape, ours in rows]
        settings = [f"    {name} = {field.value!r} ({field.how})" for name, field in sorted(self.fields.items())]
        assumed = sorted(
            name
            for name in ("hidden_dropout_prob", "attention_probs_dropout_prob")
            if hasattr(self.model.config, name) and name not in self.fields
        )
        settings += [f"    {name} = {getattr(self.model.config, name)} (assumed; for training on)" for name in assumed]
        return "\n".join(
            [
                f"{self.source.name} -> {self.source.model_type}, {self.model.config.n_items:,} items",
                *settings,
                *table,
                f"Written to {self.folder}." if self.catalog else f"Written to {self.folder}. {_NO_CATALOG}",
            ]
        )


def convert_checkpoint(
    source: str | Path,
    output: str | Path,
    model_type: str | None = None,
    item_ids: str | Path | None = None,
    config: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Conversion:
    r"""
    Convert a checkpoint of somebody's code into a checkpoint folder of this package.

    Nothing in the file is run, see [`read_checkpoint`]. The folder appears when it is complete, and not before.

    Args:
        source (`str`): The `.pth` file: RecBole's of Mamba4Rec, MLSA4Rec, GRU4Rec or BERT4Rec, or a state dict of
            pmixer's SASRec, of RecMamba, or of MambaRec's `MambaRec` and `SASmambaRec`.
        output (`str`): The folder to write; it must be new or empty.
        model_type (`str`, *optional*): What the checkpoint is said to be; otherwise its weights tell.
        item_ids (`str`, *optional*): Where the raw ids of the items are, see [`read_catalog`]. Without it those in the
            checkpoint are taken, and without these there is no catalog.
        config (`dict`, *optional*): Fields of the model's configuration that the checkpoint does not tell, such as
            `num_attention_heads`.
        overwrite (`bool`, *optional*, defaults to `False`): Replace a checkpoint folder that is already there.

    Raises:
        FileNotFoundError: if a file is not there.
        FileExistsError: if there is something at `output`.
        ValueError: if the file is not what it is said to be, cannot be carried exactly, or lacks something.

    Example:

    ```python
    >>> conversion = convert_checkpoint("Mamba4Rec.pth", "mamba4rec-ml-1m", item_ids="data/ml-1m")
    >>> conversion.model.recommend(torch.tensor([conversion.catalog.encode(["1193", "661"])]))
    ```
    """
    output = Path(output)
    _check_output(output, overwrite)
    checkpoint = read_checkpoint(source)
    hyper_parameters = noted_beside(Path(source)) | checkpoint.hyper_parameters
    weights = _without_wrapper(checkpoint.weights)
    authors = find_source(weights, hyper_parameters, model_type)
    moved, tensors = _move(authors, weights)
    reason = authors.why_not(weights, hyper_parameters)
    if reason is not None:
        raise ValueError(
            f"{source} cannot be carried by `{authors.model_type}`: {reason}. Convert a checkpoint of code that does "
            "as ours, or train the model with `hf-seqrec train`."
        )
    model_config, fields = configure(authors, tensors, hyper_parameters, config or {})
    model = model_class(authors.model_type)(model_config)
    _fill(model, tensors, moved)
    catalog = _catalog(checkpoint, item_ids, model_config.n_items, str(source))
    model.config.catalog_fingerprint = None if catalog is None else catalog.fingerprint()
    conversion = Conversion(output, model, catalog, authors, moved, fields)
    _write(conversion, Path(source).name, overwrite)
    return conversion


def _check_output(output: Path, overwrite: bool) -> None:
    if not output.exists() or (output.is_dir() and not any(output.iterdir())):
        return
    if not overwrite or not (output / "config.json").is_file():
        raise FileExistsError(
            f"`output` must be new or an empty folder, but there is something at {output}. Choose another `output`"
            + (", or replace the checkpoint with `--overwrite`." if not overwrite else ": it is no checkpoint.")
        )


def _without_wrapper(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off what data parallelism and `torch.compile` put before all names."""
    for prefix in ("module.", "_orig_mod."):
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): weight for name, weight in weights.items()}
    return weights


def _move(source: Source, weights: Mapping[str, Tensor]) -> tuple[list[MovedWeight], dict[str, Tensor]]:
    """Give every weight its name here, in float32."""
    strange = [name for name, w in weights.items() if not w.is_floating_point() or w.layout != torch.strided]
    if strange:
        raise ValueError(
            f"`source` has weights that are no arrays of floating-point numbers: {', '.join(strange)}. Convert the "
            "checkpoint that training wrote, not a quantized or sparse one."
        )
    moved: list[MovedWeight] = []
    tensors: dict[str, Tensor] = {}
    unknown: list[str] = []
    for name, weight in weights.items():
        for move in source.moves:
            parts = move.apply(name, weight)
            if parts is not None:
                tensors |= {ours: part.to(torch.float32) for ours, part in parts.items()}
                moved.append(MovedWeight(name, tuple(parts), tuple(weight.shape), move.note))
                break
        else:
            unknown.append(name)
    if unknown:
        raise ValueError(
            f"`source` has weights that {source.name} does not have: {', '.join(unknown)}. It is of a changed model, "
            "which would compute something else without them. Train it anew as one of this package's models."
        )
    broken = [name for name, weight in weights.items() if not torch.isfinite(weight).all()]
    if broken:
        raise ValueError(
            f"`source` has NaN or infinite numbers in {', '.join(broken)}: its training diverged, or the file is "
            "damaged. Convert an earlier checkpoint."
        )
    if not source.keeps_padding_row and _ITEMS in tensors and tensors[_ITEMS][:1].any():
        tensors[_ITEMS] = tensors[_ITEMS].clone()
        tensors[_ITEMS][0] = 0
        note = "row 0, of the padding, set to zero: no item sees it, and it is never recommended"
        moved = [weight._replace(note=note) if _ITEMS in weight.ours else weight for weight in moved]
    return moved, tensors


def _fill(model: SeqRecPreTrainedModel, tensors: Mapping[str, Tensor], moved: list[MovedWeight]) -> None:
    """Put the weights into the model, if they are all there and fit."""
    expected = model.state_dict()
    theirs = {ours: weight.theirs for weight in moved for ours in weight.ours}
    missing = [name for name in expected if name not in tensors]
    surplus = [theirs[name] for name in tensors if name not in expected]
    if missing or surplus:
        raise ValueError(
            f"`source` is not a complete `{model.config.model_type}`."
            + (f" It lacks what makes {', '.join(missing)}." if missing else "")
            + (f" It has what no layer asks for: {', '.join(surplus)}." if surplus else "")
            + " It is of a changed or another version's model; the code of its time would have to be converted."
        )
    unfit = [
        f"{theirs[name]} makes {name} {tuple(tensors[name].shape)}, expected {tuple(weight.shape)}"
        for name, weight in expected.items()
        if tensors[name].shape != weight.shape
    ]
    if unfit:
        raise ValueError(
            f"`source` has weights whose shapes contradict each other: {'; '.join(unfit)}. It is damaged, or of a "
            "changed model."
        )
    model.load_state_dict(dict(tensors))
    model.eval()


def _catalog(checkpoint: SourceCheckpoint, item_ids: str | Path | None, n_items: int, where: str) -> Catalog | None:
    if item_ids is not None:
        return read_catalog(item_ids, n_items)
    return None if checkpoint.item_ids is None else make_catalog(checkpoint.item_ids, n_items, where)


def _write(conversion: Conversion, source_name: str, overwrite: bool) -> None:
    """Write the folder, whole or not at all."""
    with replacing_folder(conversion.folder, lambda output: _check_output(output, overwrite)) as folder:
        conversion.model.save_pretrained(folder)
        if conversion.catalog is not None:
            conversion.catalog.save(folder)
        write_model_card(folder, conversion.model.config, results=None)
        with (folder / CARD_FILE).open("a", encoding="utf-8") as card:
            card.write(
                f"\n## Source\n\nConverted by `hf-seqrec convert` from `{source_name}`, a checkpoint of "
                f"{conversion.source.name}. Its authors' terms apply to the weights.\n"
            )
