"""Configuration of Mamba4Rec."""

from typing import Any

from huggingface_hub.dataclasses import strict

from .configuration_state_space import StateSpaceConfig


@strict
class Mamba4RecConfig(StateSpaceConfig):
    r"""
    Configuration of [`Mamba4Rec`]. Defaults are the paper's (Liu et al. 2024, https://arxiv.org/abs/2403.03900,
    Section 4.1.4).

    `initializer="reference"` does as the authors' repository does: every linear layer is drawn again with
    `initializer_range` and its bias set to zero, `dt_proj` included, so that all step sizes start at
    `softplus(0) = 0.69` and the slowest state forgets in about one step. The paper's numbers were obtained with it.

    Args:
        intermediate_size (`int`, *optional*):
            Width of the feed-forward network; `None` gives `4 * hidden_size`.

    Example:

    ```python
    >>> from hf_seqrec import Mamba4Rec, Mamba4RecConfig

    >>> model = Mamba4Rec(Mamba4RecConfig(vocab_size=1001))
    ```
    """

    model_type = "mamba4rec"

    intermediate_size: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        self._check_at_least_one("intermediate_size")
