"""Lists of raw item ids in every form that users have them: lists, numpy, pandas and pyarrow arrays, generators."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def plain_list(values: Any) -> list[Any] | None:
    """Return what holds several values as a list; `None` for what does not, such as a string or a dictionary."""
    if isinstance(values, str | bytes | Mapping):
        return None
    # pyarrow; numpy, pandas and torch; a list inside a pyarrow array.
    for name in ("to_pylist", "tolist", "as_py"):
        if hasattr(values, name):
            found = getattr(values, name)()
            return found if isinstance(found, list) else None
    return list(values) if isinstance(values, Iterable) else None


def raw_ids(values: Any, name: str) -> list[str | int]:
    r"""
    Return raw item ids as a list.

    Args:
        values: A list, an array of numpy, pandas or pyarrow, a generator, or anything else that yields texts or
            integers.
        name (`str`): The argument's name, for the error.

    Raises:
        TypeError: if it is one text, or something in it is neither text nor integer.
    """
    ids = plain_list(values)
    if ids is None:
        raise TypeError(
            f"`{name}` must be a list of raw item ids (texts or integers), got {values!r:.100}. Pass a list, oldest "
            "first."
        )
    # The types are few, the ids may be many.
    if not set(map(type, ids)) <= {str, int}:
        for position, item_id in enumerate(ids):
            if not isinstance(item_id, str | int | np.integer) or isinstance(item_id, bool):
                raise TypeError(
                    f"`{name}` must be a list of raw item ids (texts or integers), got {item_id!r:.100} of type "
                    f"{type(item_id).__name__} at position {position}. Leave it out, or turn it into its raw id."
                )
    return ids
