"""What layers keep between calls, where transformers' cache layers do not fit histories of different lengths."""

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer, LinearAttentionAndFullAttentionLayer, LinearAttentionLayer


class RaggedAttentionLayer(DynamicLayer):
    r"""
    Keys and values of histories that differ in length: those of a row's item at position `p` stand at place `p`.

    transformers' own `DynamicLayer` appends whatever it is given, padding included, so that the items of a shorter
    row would be followed by holes. Here a query at position `p` may see exactly the places `0..p`.
    """

    is_croppable = False

    def __init__(self) -> None:
        super().__init__()
        self.lengths: Tensor | None = None

    def update(self, key_states: Tensor, value_states: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        r"""
        Add the items of one call and return the keys and values of all so far, `(b, h, places, d / h)` each.

        Args:
            key_states, value_states (`torch.Tensor` of shape `(b, h, l, d / h)`): Of the new items, padded on the
                right.
            lengths (`torch.LongTensor` of shape `(b,)`): How many of them are real in each row.
        """
        if self.lengths is None or self.keys is None or self.values is None:
            self.lazy_initialization(key_states, value_states)
            self.lengths = lengths
            longest = int(lengths.max())
            self.keys, self.values = key_states[:, :, :longest], value_states[:, :, :longest]
            # Padding at the end is seen by no real query, and equal numbers of queries and keys suit fast kernels.
            return key_states, value_states

        held, before = self.keys.shape[2], self.lengths[:, None]
        self.lengths = self.lengths + lengths
        places = torch.arange(int(self.lengths.max()), device=lengths.device)
        # Where each place comes from in [what is held, what is new]. Beyond a row's end: anything.
        source = torch.where(places < before, places, held + places - before)
        source = source.clamp(max=held + key_states.shape[2] - 1)[:, None, :, None]  # [b, 1, places, 1]
        self.keys, self.values = (
            joined.gather(2, source.expand(-1, joined.shape[1], -1, joined.shape[3]))
            for joined in (torch.cat([self.keys, key_states], dim=2), torch.cat([self.values, value_states], dim=2))
        )
        return self.keys, self.values

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.lengths = None

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the rows `beam_idx`, in that order."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep the rows `indices`, in that order."""
        super().batch_select_indices(indices)
        if self.lengths is not None:
            self.lengths = self.lengths[indices]

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row `repeats` times."""
        super().batch_repeat_interleave(repeats)
        if self.lengths is not None:
            self.lengths = self.lengths.repeat_interleave(repeats)

    def crop(self, tokens_to_remove: int) -> None:
        """Not possible: rows end at different places."""
        raise NotImplementedError("Histories of different lengths cannot be cropped together; encode them again.")


class RecurrentStateLayer(LinearAttentionLayer):
    """A recurrent state of fixed size without a convolution's beside it, as a GRU has."""

    def update_recurrent_state(self, recurrent_states: Tensor, state_idx: int = 0, **kwargs: object) -> Tensor:
        """Replace the state. transformers' layer would only return it after an update of a convolution's."""
        self.has_previous_state[state_idx] = True
        return super().update_recurrent_state(recurrent_states, state_idx)


class RaggedHybridLayer(  # type: ignore[misc]  # as transformers' own hybrid: two halves that type `device` differently
    RaggedAttentionLayer, RecurrentStateLayer, LinearAttentionAndFullAttentionLayer
):
    """Recurrent states of fixed size, and beside them keys and values of histories that differ in length."""

    def __init__(self, number_of_states: int = 1) -> None:
        LinearAttentionAndFullAttentionLayer.__init__(self, number_of_states=number_of_states)
        self.lengths: Tensor | None = None

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Keep the rows `beam_idx`, in that order."""
        RecurrentStateLayer.reorder_cache(self, beam_idx)  # type: ignore[arg-type]
        RaggedAttentionLayer.batch_select_indices(self, beam_idx)
