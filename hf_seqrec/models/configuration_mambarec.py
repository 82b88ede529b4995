"""Configuration of MambaRec*."""

from huggingface_hub.dataclasses import strict

from .configuration_state_space import StateSpaceConfig


@strict
class MambaRecConfig(StateSpaceConfig):
    r"""
    Configuration of [`MambaRec`]. Defaults are those of the code of its proposal
    (https://github.com/alokamgnaneswarasai/MambaRec), at this package's width.

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
