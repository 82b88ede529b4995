"""Configuration of ResidualMamba."""

from dataclasses import field
from typing import Any

from huggingface_hub.dataclasses import strict

from .configuration_state_space import StateSpaceConfig


@strict
class ResidualMambaConfig(StateSpaceConfig):
    r"""
    Configuration of [`ResidualMamba`]. Defaults are those that did best on Amazon Beauty's validation items.

    `initializer="reference"` draws every matrix with Xavier's normal distribution, as RecMamba's script does, those of
    the state space included.

    Args:
        num_hidden_layers (`int`, *optional*, defaults to 2):
            Number of layers. With 0 the score of an item is its product with the normalised embedding of the last one.
        intermediate_size (`int`, *optional*):
            Width of the feed-forward network; `None` gives `hidden_size`.
        position_dropout_prob (`float`, *optional*, defaults to 0.3):
            Share of the positions, in [0, 1), that each Mamba block does not see while training. The residual stream
            keeps them.

    Raises:
        ValueError: if a field is out of its range.

    Example:

    ```python
    >>> from hf_seqrec import ResidualMamba, ResidualMambaConfig

    >>> model = ResidualMamba(ResidualMambaConfig(vocab_size=1001))
    ```
    """

    model_type = "residualmamba"
    fewest_hidden_layers = 0

    num_hidden_layers: int = 2
    hidden_dropout_prob: int | float = field(default=0.5, metadata={"free_in_fine_tuning": True})
    state_size: int = 8
    conv_kernel: int = 1
    intermediate_size: int | None = None
    position_dropout_prob: int | float = field(default=0.3, metadata={"free_in_fine_tuning": True})
    # Of Mamba's own stack of blocks.
    layer_norm_eps: int | float = 1e-5

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.intermediate_size is None:
            self.intermediate_size = self.hidden_size
        self._check_at_least_one("intermediate_size")
        if not 0.0 <= self.position_dropout_prob < 1.0:
            raise ValueError(f"`position_dropout_prob` must be in [0, 1), got {self.position_dropout_prob}.")
