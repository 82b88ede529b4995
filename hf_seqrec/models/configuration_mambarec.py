"""Configuration of MambaRec*."""

from huggingface_hub.dataclasses import strict

from .configuration_state_space import StateSpaceConfig


@strict
class MambaRecConfig(StateSpaceConfig):
    r"""
    Configuration of [`MambaRec`], the stack of Mamba blocks of its proposal's text
    (https://github.com/alokamgnaneswarasai/MambaRec), at this package's width and dropout.

    The numbers that carry this name in the proposal were made by another model, which is `recmamba` here: see
    [`MambaRec`].

    `initializer="reference"` draws every matrix with Xavier's normal distribution, as that code's script does, those
    of the state space included.

    Example:

    ```python
    >>> from hf_seqrec import MambaRec, MambaRecConfig

    >>> model = MambaRec(MambaRecConfig(vocab_size=1001, num_hidden_layers=2))
    ```
    """

    model_type = "mambarec"

    # Of Mamba's own stack of blocks.
    layer_norm_eps: int | float = 1e-5

    @property
    def note(self) -> str | None:
        """What a card says of this variant of the model."""
        return (
            "This is the stack of Mamba blocks that the proposal's text describes. The numbers that carry the name "
            "MambaRec* there were made by one bare Mamba block with positions, which is `recmamba` in this package."
        )
