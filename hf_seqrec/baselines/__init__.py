"""
What no trained model should lose to: recommenders that count, fitted in seconds to minutes without a network.

Read `baseline.py` first (what a baseline is), then one of `popularity`, `sequential_rules`, `item_knn` and `ease`.
`training_events` is what they are fitted on, `history_weights` how they read a history, and `neighbors` how counts of
pairs of items stay within memory.
"""

import dataclasses
import importlib
from typing import Any

# Module and class of each baseline; imported at first use, because most need scipy.
BASELINES: dict[str, tuple[str, str]] = {
    "popularity": ("popularity", "MostPopular"),
    "rules": ("sequential_rules", "SequentialRules"),
    "item_knn": ("item_knn", "ItemKNN"),
    "last_item": ("item_knn", "LastItemKNN"),
    "ease": ("ease", "EASE"),
}


def baseline_class(name: str) -> Any:
    """
    Return the class of a baseline.

    Raises:
        ValueError: if there is no such baseline.
    """
    if name not in BASELINES:
        raise ValueError(f"`name` must be one of {', '.join(BASELINES)}, got {name!r}.")
    module, class_name = BASELINES[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), class_name)


def fit_baseline(name: str, histories: Any, **parameters: Any) -> Any:
    r"""
    Make a baseline and fit it.

    Args:
        name (`str`): One of `BASELINES`.
        histories (`HistoryDataset` or `StreamedHistories`): The training view of a split.
        parameters: Fields of the baseline's class, such as `window=1` of the rules.

    Returns:
        [`Baseline`]: the fitted baseline.

    Raises:
        ValueError: if there is no such baseline or parameter, a value is out of range, or the catalog is too large.

    Example:

    ```python
    >>> rules = fit_baseline("rules", splits.train)
    >>> markov_chain = fit_baseline("rules", splits.train, window=1)
    ```
    """
    found = baseline_class(name)
    allowed = [field.name for field in dataclasses.fields(found) if field.init]
    unknown = [parameter for parameter in parameters if parameter not in allowed]
    if unknown:
        raise ValueError(
            f"`{unknown[0]}` is no parameter of the baseline {name!r}; it has {', '.join(allowed) or 'none'}."
        )
    return found(**parameters).fit(histories)
