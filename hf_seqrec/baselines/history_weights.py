"""How baselines read a history: the most recent items, weighted by their age."""

import numpy as np
import numpy.typing as npt
from scipy import sparse
from torch import Tensor


def history_weights(input_ids: Tensor, vocab_size: int, max_history: int | None, decay: float) -> sparse.csr_array:
    r"""
    Return what each item of each history weighs, `(b, v)`: `decay ** age`, added up where an item is repeated.

    Args:
        input_ids (`torch.LongTensor` of shape `(b, l)`): Catalog rows, oldest first, padded with 0 on either side.
        vocab_size (`int`): Columns of the result.
        max_history (`int`, *optional*): Most recent items that count; `None`: all.
        decay (`float`): Weight of an item compared with that of the next one. The last item weighs 1.

    Example:

    ```python
    >>> history_weights(torch.tensor([[0, 1, 2, 1]]), 3, max_history=None, decay=0.5).toarray()
    array([[0.  , 1.25, 0.5 ]])
    ```
    """
    rows: npt.NDArray[np.int64] = input_ids.cpu().numpy()
    is_real = rows > 0
    # Real items behind each position: 0 for the last one.
    ages: npt.NDArray[np.int64] = np.cumsum(is_real[:, ::-1], axis=1)[:, ::-1] - is_real
    if max_history is not None:
        is_real = is_real & (ages < max_history)
    users, positions = np.nonzero(is_real)
    weights = np.power(float(decay), ages[users, positions])
    return sparse.csr_array((weights, (users, rows[users, positions])), shape=(len(rows), vocab_size))
