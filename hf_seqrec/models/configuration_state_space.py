"""What the configurations of all recommenders with Mamba blocks share."""

import math
from dataclasses import field
from typing import Any, Literal

from huggingface_hub.dataclasses import strict

from .configuration_seqrec import SeqRecConfig


@strict
class StateSpaceConfig(SeqRecConfig):
    r"""
    Base of the configurations of recommenders with Mamba blocks: the shape of [`MambaMixer`] and where it starts.

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
        initializer (`"mamba"` or `"reference"`, *optional*, defaults to `"mamba"`):
            `"mamba"` keeps the state-space parameters as Mamba initialises them and draws matrices and embeddings
            with `initializer_range`. `"reference"` does as the authors' repository does; each model says what that is.
        scan_backend (`str`, *optional*):
            How scan and convolution are computed: `"reference"`, `"chunked"`, or one of the kernels of
            `hf_seqrec/ops`. By default the fastest way that each call can take. Not saved: it is about a machine, not
            about a model.

    Raises:
        ValueError: if a field is out of its range.
    """

    state_size: int = 32
    conv_kernel: int = 4
    expand: int = 2
    time_step_rank: int | None = None
    time_step_min: int | float = 0.001
    time_step_max: int | float = 0.1
    time_step_floor: int | float = 1e-4
    initializer: Literal["mamba", "reference"] = "mamba"
    scan_backend: str | None = field(default=None, metadata={"of_the_machine": True})

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.time_step_rank is None:
            self.time_step_rank = math.ceil(self.hidden_size / 16)
        self._check_at_least_one("state_size", "conv_kernel", "expand", "time_step_rank")
        if not 0.0 < self.time_step_min <= self.time_step_max:
            raise ValueError(
                "`time_step_min` and `time_step_max` must satisfy 0 < time_step_min <= time_step_max, "
                f"got {self.time_step_min} and {self.time_step_max}."
            )

    def to_dict(self) -> dict[str, Any]:
        """As [`PreTrainedConfig.to_dict`], without `scan_backend`."""
        fields = super().to_dict()
        fields.pop("scan_backend", None)
        return fields

    def _check_at_least_one(self, *names: str) -> None:
        for name in names:
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}.")


@strict
class WholeHistoryConfig(StateSpaceConfig):
    r"""
    Base of the configurations of models whose authors let every position see the whole history, the future included.

    Args:
        causal (`bool`, *optional*, defaults to `True`):
            Whether a position sees only itself and what came before it. `False` reproduces the authors' arithmetic,
            for checkpoints converted from their code: each history is padded to `max_position_embeddings` positions
            with the embedding of row 0, and nothing masks the padding or the future. Such a model can learn at the
            last item of each history only, and carries no state.

    Raises:
        ValueError: if a field is out of its range, or `causal=False` comes without `max_position_embeddings`.
    """

    causal: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if not self.causal and self.max_position_embeddings is None:
            raise ValueError(
                "`causal=False` pads each history to `max_position_embeddings` positions, which is None. "
                "Set it to the length that the authors' model was trained with."
            )

    @property
    def objective(self) -> str:
        """What the model learns: only the item after the last where the other positions would see their answer."""
        return "next_item" if self.causal else "last_item"

    @property
    def stateless_because(self) -> str | None:
        """Why no state can be carried from one call to the next; `None` where it can."""
        if self.causal:
            return None
        return "with `causal=False` a new item changes what the model makes of all items before it"
