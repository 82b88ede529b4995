"""Layers as in the papers, a position at a time: slow, plain, and what the fast ones are compared with."""

import torch
import torch.nn.functional as F


def mamba_by_the_book(mixer, inputs):
    """Algorithm 2 and Figure 3 of the Mamba paper for one sequence `(l, d)`, a position and a channel at a time."""
    x, z = (inputs @ mixer.in_proj.weight.T).chunk(2, dim=-1)
    kernel, width = mixer.conv1d.weight[:, 0], mixer.conv1d.weight.shape[-1]
    padded = torch.cat([torch.zeros(width - 1, x.shape[1], dtype=x.dtype), x])
    x = torch.stack([(padded[t : t + width].T * kernel).sum(1) + mixer.conv1d.bias for t in range(len(x))])
    x = F.silu(x)
    step, B, C = (x @ mixer.x_proj.weight.T).split([mixer.time_step_rank, mixer.state_size, mixer.state_size], dim=-1)
    delta = F.softplus(step @ mixer.dt_proj.weight.T + mixer.dt_proj.bias)
    A = -torch.exp(mixer.A_log)
    outputs = torch.zeros_like(x)
    for channel in range(x.shape[1]):
        state = torch.zeros(mixer.state_size, dtype=x.dtype)
        for t in range(len(x)):
            state = torch.exp(delta[t, channel] * A[channel]) * state + delta[t, channel] * B[t] * x[t, channel]
            outputs[t, channel] = (C[t] * state).sum() + mixer.D[channel] * x[t, channel]
    return (outputs * F.silu(z)) @ mixer.out_proj.weight.T


def attention_by_the_book(attention, inputs):
    """Causal attention of one sequence `(l, d)`, a position and a head at a time."""
    query, key, value = attention.q_proj(inputs), attention.k_proj(inputs), attention.v_proj(inputs)
    size = attention.head_size
    outputs = torch.zeros_like(inputs)
    for t in range(len(inputs)):
        for head in range(inputs.shape[1] // size):
            part = slice(head * size, (head + 1) * size)
            weights = torch.softmax(key[: t + 1, part] @ query[t, part] / size**0.5, dim=0)
            outputs[t, part] = weights @ value[: t + 1, part]
    return attention.out_proj(outputs)


def interest_attention_by_the_book(attention, inputs):
    """Attention of one sequence `(l, d)` to the interests pooled from each prefix, a position and a head at a time."""
    query, key, value = attention.q_proj(inputs), attention.k_proj(inputs), attention.v_proj(inputs)
    size = attention.head_size
    outputs = torch.zeros_like(inputs)
    for t in range(len(inputs)):
        seen_keys, seen_values = key[: t + 1], value[: t + 1]
        keys = torch.softmax(seen_keys @ attention.key_interests, dim=0).T @ seen_keys
        values = torch.softmax(seen_values @ attention.value_interests, dim=0).T @ seen_values
        for head in range(inputs.shape[1] // size):
            part = slice(head * size, (head + 1) * size)
            weights = torch.softmax(keys[:, part] @ query[t, part] / size**0.5, dim=0)
            outputs[t, part] = weights @ values[:, part]
    return attention.layer_norm(outputs + inputs)
