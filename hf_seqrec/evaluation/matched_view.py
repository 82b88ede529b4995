"""Put a dataset's histories into the rows of a model that was trained on another catalog."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..data.catalog import Catalog
from ..data.histories import HistoryDataset
from ..data.sequences import Sequences


class MatchedView(NamedTuple):
    """
    A view of a dataset in the rows of a model's catalog.

    Fields:
        view: The users who can be ranked: the model knows their target and at least one item of their history.
        is_ranked (`(n,)` bool): Which users of the original view those are.
        n_unknown_targets: Users whose target the model does not know.
        n_unknown_histories: Users with a known target, of whose history the model knows nothing.
        n_unknown_events: Events of the histories that the model does not know; they are left out of what it sees.
    """

    view: HistoryDataset
    is_ranked: npt.NDArray[np.bool_]
    n_unknown_targets: int
    n_unknown_histories: int
    n_unknown_events: int


def model_rows(dataset: Catalog, model: Catalog) -> npt.NDArray[np.int64]:
    """
    Return the model's row of each row of a dataset's catalog, by raw id, `(vocab_size,)`; 0 where it has none.

    Raises:
        ValueError: if the two catalogs share no item.
    """
    rows = model.rows_of(dataset.item_ids)
    if not rows.any():
        raise ValueError(
            f"The checkpoint's catalog of {model.n_items:,} items (such as {model.item_ids[0].as_py()!r}) and the "
            f"dataset's of {dataset.n_items:,} (such as {dataset.item_ids[0].as_py()!r}) share no raw item id. Take "
            "the checkpoint that was trained on this dataset's items, or build the dataset with the ids it knows."
        )
    return np.concatenate([[0], rows])


def match_catalog(view: HistoryDataset, rows: npt.NDArray[np.int64], catalog: Catalog) -> MatchedView:
    r"""
    Express a view in the rows of a model's catalog. Nothing is copied where the two catalogs are the same.

    Args:
        view ([`HistoryDataset`]): A validation or test view.
        rows (`(vocab_size,)` int64): What [`model_rows`] returns.
        catalog ([`Catalog`]): The model's.

    Raises:
        ValueError: if no user can be ranked.
    """
    assert view.targets is not None  # both parts of a split that are evaluated have targets
    if len(rows) == catalog.vocab_size and np.array_equal(rows, np.arange(len(rows))):
        return MatchedView(view, np.ones(len(view), dtype=bool), 0, 0, 0)
    events, owners = view.events()
    events, targets = rows[events], rows[view.targets]
    is_known = events > 0
    n_known = np.bincount(owners[is_known], minlength=len(view))
    is_ranked = (targets > 0) & (n_known > 0)
    if not is_ranked.any():
        raise ValueError(
            f"No user can be evaluated: of {len(view):,} users the checkpoint knows the target of "
            f"{int((targets > 0).sum()):,}, and something of the history of {int((n_known > 0).sum()):,}, but of none "
            f"both. It shares {int((rows > 0).sum()):,} of the dataset's {len(rows) - 1:,} items."
        )
    # Users who are not ranked keep their place, without events: negatives depend on it.
    users = view.users[is_ranked]
    lengths = np.zeros(view.sequences.n_users, dtype=np.int64)
    lengths[users] = n_known[is_ranked] + 1
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    starts, stops = offsets[users], offsets[users + 1] - 1
    item_rows = np.empty(offsets[-1], dtype=np.int32)
    is_target = np.zeros(len(item_rows), dtype=bool)
    is_target[stops] = True
    item_rows[stops] = targets[is_ranked]
    item_rows[~is_target] = events[is_known & is_ranked[owners]]
    sequences = Sequences(item_rows, offsets, catalog, view.sequences.user_ids)
    return MatchedView(
        view=HistoryDataset(sequences, users, starts, stops, has_targets=True),
        is_ranked=is_ranked,
        n_unknown_targets=int((targets == 0).sum()),
        n_unknown_histories=int(((targets > 0) & (n_known == 0)).sum()),
        n_unknown_events=int((~is_known).sum()),
    )
