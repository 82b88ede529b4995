"""The Mamba block that the state-space recommenders share."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init

from .configuration_state_space import StateSpaceConfig
from .history_context import HistoryContext
from .op_causal_conv import causal_conv1d
from .op_selective_scan import selective_scan


class MambaMixer(nn.Module):
    r"""
    Selective state-space block (Gu and Dao 2023, https://arxiv.org/abs/2312.00752, Figure 3 and Algorithm 2).

    `out_proj(scan(SiLU(conv(x))) * SiLU(z))` with `x, z = in_proj(u)`. Parameters are named as in mamba_ssm and
    transformers, so weights move between them unchanged.

    Args:
        config ([`StateSpaceConfig`]): The shape of the block, and the range of its initial step sizes.
        layer_idx (`int`): Place of this block's state in a cache.
    """

    # Decaying them would pull every state towards forgetting; the trainer leaves them out, as mamba_ssm asks.
    no_weight_decay = ("A_log", "D")

    def __init__(self, config: StateSpaceConfig, layer_idx: int) -> None:
        super().__init__()
        assert config.time_step_rank is not None  # the configuration has filled it in
        channels = config.expand * config.hidden_size
        self.state_size = config.state_size
        self.time_step_rank = config.time_step_rank
        self.time_step_range = (config.time_step_min, config.time_step_max, config.time_step_floor)
        self.layer_idx = layer_idx
        self.scan_backend = config.scan_backend
        self.in_proj = nn.Linear(config.hidden_size, 2 * channels, bias=False)
        self.conv1d = nn.Conv1d(
            channels, channels, config.conv_kernel, groups=channels, padding=config.conv_kernel - 1
        )
        self.x_proj = nn.Linear(channels, self.time_step_rank + 2 * self.state_size, bias=False)
        self.dt_proj = nn.Linear(self.time_step_rank, channels)
        self.A_log = nn.Parameter(torch.empty(channels, self.state_size))
        self.D = nn.Parameter(torch.empty(channels))
        self.out_proj = nn.Linear(channels, config.hidden_size, bias=False)

    @torch.no_grad()
    def init_state_space(self) -> None:
        r"""
        Initialise `A_log`, `D`, `dt_proj` and the convolution as the authors of Mamba do.

        `A = -(1..n)` (S4D-real), `D = 1`, step sizes log-uniform in their range. Parameters that a checkpoint has
        filled are left alone.
        """
        channels, device = len(self.D), self.D.device
        init.copy_(self.A_log, torch.arange(1, self.state_size + 1, device=device).log().expand(channels, -1))
        init.ones_(self.D)
        scale = self.time_step_rank**-0.5
        init.uniform_(self.dt_proj.weight, -scale, scale)
        lowest, highest, floor = self.time_step_range
        log_steps = torch.empty(channels, device=device).uniform_(math.log(lowest), math.log(highest))
        steps = log_steps.exp().clamp(min=floor)
        # The inverse of softplus, which the scan applies to the bias.
        init.copy_(self.dt_proj.bias, steps + torch.log(-torch.expm1(-steps)))
        init.kaiming_uniform_(self.conv1d.weight, a=math.sqrt(5))
        if self.conv1d.bias is not None:
            bound = self.conv1d.kernel_size[0] ** -0.5
            init.uniform_(self.conv1d.bias, -bound, bound)

    @torch.no_grad()
    def init_projections(self) -> None:
        """Initialise the three projections as the authors of Mamba do: uniform, within `1 / sqrt(inputs)`."""
        for projection in (self.in_proj, self.x_proj, self.out_proj):
            init.kaiming_uniform_(projection.weight, a=math.sqrt(5))

    def forward(self, hidden_states: Tensor, context: HistoryContext) -> Tensor:
        """
        Map `(b, l, d)` to `(b, l, d)`, or with `context.only_last` to `(b, 1, d)`.

        With `only_last`, the gate and the last projection are computed for the last real position of each row alone.
        """
        cache, lengths = context.cache, context.lengths
        conv_state = scan_state = None
        if cache is not None:
            conv_state, scan_state = cache.get(self.layer_idx, "conv"), cache.get(self.layer_idx, "scan")

        # A layer put in its place (LoRA's, a quantised one) has its own way to use the matrix.
        gate_apart = context.only_last and type(self.in_proj) is nn.Linear
        if gate_apart:
            input_matrix, gate_matrix = self.in_proj.weight.chunk(2)
            x, z = F.linear(hidden_states, input_matrix), F.linear(context.needed(hidden_states), gate_matrix)
        else:
            x, z = self.in_proj(hidden_states).chunk(2, dim=-1)  # [b, l, channels] each
        x, conv_state = causal_conv1d(
            x,
            self.conv1d.weight.squeeze(1),
            self.conv1d.bias,
            "silu",
            initial_state=conv_state,
            lengths=lengths,
            backend=self.scan_backend,
        )
        time_step, B, C = self.x_proj(x).split([self.time_step_rank, self.state_size, self.state_size], dim=-1)
        delta, delta_bias = self._step_sizes(time_step)
        y, scan_state = selective_scan(
            x,
            delta,
            -torch.exp(_at_least_float32(self.A_log)),
            B,
            C,
            D=_at_least_float32(self.D),
            z=None if gate_apart else z,
            delta_bias=delta_bias,
            delta_softplus=True,
            initial_state=scan_state,
            lengths=lengths,
            backend=self.scan_backend,
        )
        if cache is not None:
            cache.set(self.layer_idx, "conv", conv_state)
            cache.set(self.layer_idx, "scan", scan_state)
        y = context.needed(y)
        return self.out_proj(y * F.silu(z) if gate_apart else y)

    def _step_sizes(self, time_step: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the step sizes before softplus, and the bias that the scan adds to them in float32, if it does."""
        if type(self.dt_proj) is nn.Linear:
            return F.linear(time_step, self.dt_proj.weight), _at_least_float32(self.dt_proj.bias)
        return self.dt_proj(time_step), None


def _at_least_float32(parameter: Tensor) -> Tensor:
    return parameter.to(torch.promote_types(parameter.dtype, torch.float32))
