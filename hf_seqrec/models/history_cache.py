"""What a model carries from one call to the next: states of its layers by name, with a row for each history."""

import torch
from torch import Tensor


class HistoryCache:
    r"""
    State after the last item of each history; a model returns it as `output.cache`, goes on from it and updates it.

    It takes the place of transformers' caches, which keep a row's padding between its items, and whose methods change
    with the release: a checkpoint brings this file along, and outlives releases.

    Args:
        states (`dict[str, torch.Tensor]`, *optional*): States, `(b, ...)` each, by `"{layer}.{name}"`. By default
            there are none: no item has been seen yet.
    """

    def __init__(self, states: dict[str, Tensor] | None = None) -> None:
        self.states = dict(states or {})

    def get(self, layer_idx: int, name: str) -> Tensor | None:
        """Return a layer's state `(b, ...)`; `None` before the first item."""
        return self.states.get(f"{layer_idx}.{name}")

    def set(self, layer_idx: int, name: str, state: Tensor) -> None:
        """Replace a layer's state. A view of something much larger would keep that in memory: clone it before."""
        self.states[f"{layer_idx}.{name}"] = state

    def append(self, layer_idx: int, keys: Tensor, values: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        r"""
        Add a call's items to a layer's keys and values, and return those of all so far, `(b, h, places, d / h)` each.

        The key of a row's item at position `p` stands at place `p`, so a query at position `p` may see exactly the
        places `0..p`. What stands beyond a row's end is anything.

        Args:
            layer_idx (`int`): Layer whose states `"keys"`, `"values"` and `"lengths"` they are.
            keys, values (`torch.Tensor` of shape `(b, h, l, d / h)`): Of the new items, padded on the right.
            lengths (`torch.LongTensor` of shape `(b,)`): How many of them are real in each row.
        """
        keys_before, values_before = self.get(layer_idx, "keys"), self.get(layer_idx, "values")
        lengths_before = self.get(layer_idx, "lengths")
        if keys_before is None or values_before is None or lengths_before is None:
            longest = int(lengths.max())
            self._set_attention(layer_idx, keys[:, :, :longest], values[:, :, :longest], lengths)
            # Padding at the end is seen by no real query, and equal numbers of queries and keys suit fast kernels.
            return keys, values

        held, before = keys_before.shape[2], lengths_before[:, None]
        lengths = lengths_before + lengths
        places = torch.arange(int(lengths.max()), device=lengths.device)
        # Where each place comes from in [what is held, what is new]. Beyond a row's end: anything.
        source = torch.where(places < before, places, held + places - before)
        source = source.clamp(max=held + keys.shape[2] - 1)[:, None, :, None]  # [b, 1, places, 1]
        keys, values = (
            joined.gather(2, source.expand(-1, joined.shape[1], -1, joined.shape[3]))
            for joined in (torch.cat([keys_before, keys], dim=2), torch.cat([values_before, values], dim=2))
        )
        self._set_attention(layer_idx, keys, values, lengths)
        return keys, values

    def _set_attention(self, layer_idx: int, keys: Tensor, values: Tensor, lengths: Tensor) -> None:
        for name, state in (("keys", keys), ("values", values), ("lengths", lengths)):
            self.set(layer_idx, name, state)

    def reset(self) -> None:
        """Forget everything."""
        self.states.clear()

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows `indices`, in that order."""
        self.states = {name: state[indices] for name, state in self.states.items()}

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row `repeats` times."""
        self.states = {name: state.repeat_interleave(repeats, dim=0) for name, state in self.states.items()}
