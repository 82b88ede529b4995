"""Configuration of Mamba4Rec."""

import math
from typing import Any, Literal

from huggingface_hub.dataclasses import strict

from .configuration_seqrec import SeqRecConfig


@strict
class Mamba4RecConfig(SeqRecConfig):
    r"""
    Configuration of [`Mamba4Rec`]. Defaults are the paper's (Liu et al. 2024, https://arxiv.org/abs/2403.03900,
    Section 4.1.4).

    Args:
        state_size (`int`, *optional*, defaults to 32):
            State size `n` of each channel.
        conv_kernel (`int`, *optional*, defaults to 4):
            Width of the causal convolution.
        expand (`int`, *optional*, defaults to 2):
            The Mamba block is `expand * hidden_size` channels wide.
        time_step_rank (`int`, *optional*):
            Rank of the projection that makes the step size; `None` gives `ceil(hidden_size / 16)`.
        time_step_min, time_step_max, time_step_floor (`float`, *optional*, default to 0.001, 0.1 and 1e-4):
            Step sizes start log-uniform in `[time_step_min, time_step_max]`, and not under `time_step_floor`.
        intermediate_size (`int`, *optional*):
            Width of the feed-forward network; `None` gives `4 * hidden_size`.
        initializer (`"mamba"` or `"reference"`, *optional*, defaults to `"mamba"`):
            `"mamba"` keeps the state-space parameters as Mamba initialises them. `"reference"` does as the authors'
            repository does: every linear layer is drawn again with `initializer_range` and its bias set to zero,
            `dt_proj` included, so that all step sizes start at `softplus(0) = 0.69` and the slowest state forgets in
            about one step. The paper's numbers were obtained with it.

    Example:

    ```python
    >>> from hf_seqrec import Mamba4Rec, Mamba4RecConfig

    >>> model = Mamba4Rec(Mamba4RecConfig(vocab_size=1001))
    ```
    """

    model_type = "mamba4rec"

    state_size: int = 32
    conv_kernel: int = 4
    expand: int = 2
    time_step_rank: int | None = None
    time_step_min: float = 0.001
    time_step_max: float = 0.1
    time_step_floor: float = 1e-4
    intermediate_size: int | None = None
    initializer: Literal["mamba", "reference"] = "mamba"

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.time_step_rank is None:
            self.time_step_rank = math.ceil(self.hidden_size / 16)
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        for name in ("state_size", "conv_kernel", "expand", "time_step_rank", "intermediate_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")
        if not 0.0 < self.time_step_min <= self.time_step_max:
            raise ValueError(
                "`time_step_min` and `time_step_max` must satisfy 0 < time_step_min <= time_step_max, "
                f"got {self.time_step_min} and {self.time_step_max}."
            )

    @property
    def layer_types(self) -> list[str]:
        """What each layer keeps between calls, in the words of transformers' caches: a state of fixed size."""
        return ["linear_attention"] * self.num_hidden_layers
