"""Compare two catalogs by raw item id: which items stay, which are new, which have vanished."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .catalog import Catalog


@dataclass(frozen=True)
class CatalogChange:
    """
    What becomes of the items of one catalog in another.

    Fields:
        catalog: The new catalog; where vanished items are kept, they stand behind its own.
        old_rows (`(n_items,)` int64): Which row each item of `catalog` had; 0 for new ones.
        n_old: Items of the old catalog.
        old_fingerprint: [`Catalog.fingerprint`] of the old catalog.
        n_kept_vanished: Items of `catalog` that are there only because the old one had them.
    """

    catalog: Catalog
    old_rows: npt.NDArray[np.int64]
    n_old: int
    old_fingerprint: str
    n_kept_vanished: int = 0

    @property
    def n_known(self) -> int:
        """Items that both catalogs have."""
        return int((self.old_rows > 0).sum()) - self.n_kept_vanished

    @property
    def n_new(self) -> int:
        """Items that start from a rule."""
        return int((self.old_rows == 0).sum())

    @property
    def n_vanished(self) -> int:
        """Items of the old catalog that the new one does not have, kept or not."""
        return self.n_old - self.n_known

    def __str__(self) -> str:
        kept = "kept" if self.n_kept_vanished else "dropped"
        return (
            f"{self.n_known:,} of the {self.n_old:,} items of the model are in the new catalog, {self.n_new:,} items "
            f"are new, {self.n_vanished:,} have vanished" + (f" and are {kept}" if self.n_vanished else "")
        )


def change_of_catalog(old: Catalog, new: Catalog, keep_vanished: bool = False) -> CatalogChange:
    r"""
    Compare two catalogs by raw item id.

    Args:
        old, new ([`Catalog`]): What the rows stand for now, and shall stand for.
        keep_vanished (`bool`, *optional*, defaults to `False`): Keep items that only `old` has, behind those of `new`:
            the rows of `new` stay valid. Their count becomes 0, the number of events that the new data has of them.

    Raises:
        ValueError: if the two catalogs share no item.
    """
    old_rows = old.rows_of(new.item_ids)
    if not old_rows.any():
        raise ValueError(
            f"The model's catalog of {old.n_items:,} items (such as {old.item_ids[0].as_py()!r}) and the new one of "
            f"{new.n_items:,} (such as {new.item_ids[0].as_py()!r}) share no raw item id (0 in common), so nothing "
            "that was learned of items carries over. Build the new dataset with the ids that the model knows, or "
            "train from scratch."
        )
    new = new.with_metadata_of(old)
    if not keep_vanished:
        return CatalogChange(new, old_rows, old.n_items, old.fingerprint())
    vanished = np.setdiff1d(np.arange(1, old.n_items + 1), old_rows)
    return CatalogChange(
        _with_vanished(new, old.table.take(pa.array(vanished - 1))),
        np.concatenate([old_rows, vanished]),
        old.n_items,
        old.fingerprint(),
        len(vanished),
    )


def _with_vanished(new: Catalog, vanished: pa.Table) -> Catalog:
    """Append items of another catalog; what is known of them keeps its column where `new` has it too."""
    rows = pa.array(np.arange(new.vocab_size, new.vocab_size + len(vanished)))
    counts = pa.array(np.zeros(len(vanished), dtype=np.int64))
    columns = {}
    for field in new.table.schema:
        if field.name in ("row", "count"):
            columns[field.name] = (rows if field.name == "row" else counts).cast(field.type)
        elif field.name in vanished.column_names:
            columns[field.name] = vanished[field.name].cast(field.type)
        else:
            columns[field.name] = pa.nulls(len(vanished), field.type)
    return Catalog(pa.concat_tables([new.table, pa.table(columns, schema=new.table.schema)]))
