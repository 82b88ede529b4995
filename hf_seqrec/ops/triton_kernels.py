"""The kernels that `triton_scan` launches: forward, gradient, and what cuts a long row into segments."""

# The kernel language knows no annotations for its values and no starred tuples.
# mypy: disable-error-code="no-untyped-def, assignment"
# ruff: noqa: RUF005

import triton
import triton.language as tl


@triton.jit
def softplus(x):
    # max(x, 0) + log1p(w) with w = exp(-|x|), and log1p(w) = 2 atanh(w / (2 + w)) as a series: exact to float32 where
    # log(1 + w) would lose the small steps that a trained `delta` mostly has.
    w = tl.exp2(tl.abs(x) * -1.4426950408889634)
    s = w / (2.0 + w)
    s2 = s * s
    series = 1.0 / 15.0
    series = series * s2 + 1.0 / 13.0
    series = series * s2 + 1.0 / 11.0
    series = series * s2 + 1.0 / 9.0
    series = series * s2 + 1.0 / 7.0
    series = series * s2 + 1.0 / 5.0
    series = series * s2 + 1.0 / 3.0
    series = series * s2 + 1.0
    return tl.maximum(x, 0.0) + 2.0 * s * series


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp2(x * -1.4426950408889634))


@triton.jit
def scan_kernel(
    x,
    delta,
    A2,
    B,
    C,
    D,
    z,
    delta_bias,
    lengths,
    initial,
    y,
    y_ungated,
    checkpoints,
    final,
    total_step,
    length,
    x_b,
    x_l,
    delta_b,
    delta_l,
    B_b,
    B_l,
    C_b,
    C_l,
    z_b,
    z_l,
    segment,
    n_segments,
    WIDTH: tl.constexpr,
    N: tl.constexpr,
    PAD_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    CHUNK: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    UNIT: tl.constexpr,
):
    blocks_d = tl.cdiv(WIDTH, BLOCK_D)
    program = tl.program_id(0)
    part = (program // blocks_d) % n_segments
    row = (program // blocks_d // n_segments).to(tl.int64)
    start = part * segment
    end = tl.minimum(start + segment, length)
    if lengths is not None:
        end = tl.minimum(end, tl.load(lengths + row).to(tl.int32))

    # One channel a thread, all its states in that thread's registers: y needs no shuffles. The hint (no alignment)
    # keeps the compiler from giving a thread four neighbouring channels instead.
    cols = tl.multiple_of((program % blocks_d) * BLOCK_D + tl.arange(0, BLOCK_D), 1)
    inside = (cols < WIDTH) | (WIDTH % BLOCK_D == 0)
    ns = tl.arange(0, PAD_N)
    real = ns < N
    tile = ns[:, None] * WIDTH + cols[None, :]
    whole = inside[None, :] | (ns < 0)[:, None]
    a = tl.load(A2 + tile, mask=whole, other=0.0)
    state = tl.zeros([PAD_N, BLOCK_D], tl.float32)
    if initial is not None:
        state = tl.load(initial + (row * n_segments + part) * (PAD_N * WIDTH) + tile, mask=whole, other=0.0)
    if delta_bias is not None:
        bias = tl.load(delta_bias + cols, mask=inside, other=0.0)
    if D is not None:
        skip = tl.load(D + cols, mask=inside, other=0.0)

    x += row * x_b + cols
    delta += row * delta_b + cols
    B += row * B_b * UNIT
    # Position `start`, or the last of the row where nothing is left to do: loads stay inside the tensors.
    now = tl.minimum(start, tl.maximum(end - 1, 0))
    next_delta = tl.load(delta + now * delta_l, mask=inside, other=0.0)
    next_x = tl.load(x + now * x_l, mask=inside, other=0.0)
    next_B = tl.load(B + now * B_l * UNIT + ns, mask=real, other=0.0)
    if y is not None:
        y += (row * length + start) * WIDTH + cols
        C += row * C_b * UNIT
        next_C = tl.load(C + now * C_l * UNIT + ns, mask=real, other=0.0)
    if z is not None:
        z += row * z_b + cols
        next_z = tl.load(z + now * z_l, mask=inside, other=0.0)
        if y_ungated is not None:
            y_ungated += (row * length + start) * WIDTH + cols
    states_size = tl.full([], PAD_N * WIDTH, tl.int64)
    if checkpoints is not None:
        checkpoints += row * tl.cdiv(length, CHUNK) * (PAD_N * WIDTH)
    if total_step is not None:
        elapsed = tl.zeros([BLOCK_D], tl.float32)

    for t in range(start, end):
        if checkpoints is not None:  # noqa: SIM102 (only this one is decided at compile time)
            if t % CHUNK == 0:
                tl.store(checkpoints + (t // CHUNK) * states_size + tile, state, mask=whole)
        step = next_delta.to(tl.float32)
        value = next_x.to(tl.float32)
        b = next_B.to(tl.float32)
        # The loads of the next position are on their way while this one is computed.
        now = tl.minimum(t + 1, end - 1)
        next_delta = tl.load(delta + now * delta_l, mask=inside, other=0.0)
        next_x = tl.load(x + now * x_l, mask=inside, other=0.0)
        next_B = tl.load(B + now * B_l * UNIT + ns, mask=real, other=0.0)
        if delta_bias is not None:
            step += bias
        if SOFTPLUS:
            step = softplus(step)
        if total_step is not None:
            elapsed += step
        if y is not None:
            c = next_C.to(tl.float32)
            next_C = tl.load(C + now * C_l * UNIT + ns, mask=real, other=0.0)
        if z is not None:
            gate = next_z.to(tl.float32)
            next_z = tl.load(z + now * z_l, mask=inside, other=0.0)
        state = tl.exp2(step[None, :] * a) * state + (step * value)[None, :] * b[:, None]
        if y is not None:
            out = tl.sum(state * c[:, None], 0)
            if D is not None:
                out += skip * value
            if z is not None:
                if y_ungated is not None:
                    tl.store(y_ungated, out, mask=inside)
                    y_ungated += WIDTH
                out *= gate * sigmoid(gate)
            tl.store(y, out, mask=inside)
            y += WIDTH

    if final is not None:
        tl.store(final + (row * n_segments + part) * (PAD_N * WIDTH) + tile, state, mask=whole)
    if total_step is not None:
        tl.store(total_step + (row * n_segments + part) * WIDTH + cols, elapsed, mask=inside)


@triton.jit
def segment_gradient_kernel(
    delta,
    A2,
    C,
    z,
    delta_bias,
    lengths,
    grad_y,
    carry,
    total_step,
    length,
    delta_b,
    delta_l,
    C_b,
    C_l,
    z_b,
    z_l,
    grad_y_b,
    grad_y_l,
    segment,
    n_segments,
    WIDTH: tl.constexpr,
    N: tl.constexpr,
    PAD_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    UNIT: tl.constexpr,
):
    blocks_d = tl.cdiv(WIDTH, BLOCK_D)
    program = tl.program_id(0)
    part = (program // blocks_d) % n_segments
    row = (program // blocks_d // n_segments).to(tl.int64)
    start = part * segment
    end = tl.minimum(start + segment, length)
    if lengths is not None:
        end = tl.minimum(end, tl.load(lengths + row).to(tl.int32))

    # The layout of `scan_kernel`.
    cols = tl.multiple_of((program % blocks_d) * BLOCK_D + tl.arange(0, BLOCK_D), 1)
    inside = (cols < WIDTH) | (WIDTH % BLOCK_D == 0)
    ns = tl.arange(0, PAD_N)
    real = ns < N
    tile = ns[:, None] * WIDTH + cols[None, :]
    whole = inside[None, :] | (ns < 0)[:, None]
    a = tl.load(A2 + tile, mask=whole, other=0.0)
    flow = tl.zeros([PAD_N, BLOCK_D], tl.float32)
    elapsed = tl.zeros([BLOCK_D], tl.float32)
    if delta_bias is not None:
        bias = tl.load(delta_bias + cols, mask=inside, other=0.0)
    delta += row * delta_b
    C += row * C_b * UNIT
    grad_y += row * grad_y_b
    if z is not None:
        z += row * z_b

    for i in range(0, tl.maximum(end - start, 0)):
        t = end - 1 - i
        step = tl.load(delta + t * delta_l + cols, mask=inside, other=0.0).to(tl.float32)
        grad = tl.load(grad_y + t * grad_y_l + cols, mask=inside, other=0.0).to(tl.float32)
        c = tl.load(C + t * C_l * UNIT + ns, mask=real, other=0.0).to(tl.float32)
        if delta_bias is not None:
            step += bias
        if SOFTPLUS:
            step = softplus(step)
        if z is not None:
            gate = tl.load(z + t * z_l + cols, mask=inside, other=0.0).to(tl.float32)
            grad *= gate * sigmoid(gate)
        elapsed += step
        flow = tl.exp2(step[None, :] * a) * (grad[None, :] * c[:, None] + flow)

    tl.store(carry + (row * n_segments + part) * (PAD_N * WIDTH) + tile, flow, mask=whole)
    tl.store(total_step + (row * n_segments + part) * WIDTH + cols, elapsed, mask=inside)


@triton.jit
def combine_kernel(
    A2,
    states,
    total_step,
    boundary,
    final,
    n_segments,
    WIDTH: tl.constexpr,
    PAD_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    REVERSE: tl.constexpr,
):
    blocks_d = tl.cdiv(WIDTH, BLOCK_D)
    program = tl.program_id(0)
    row = (program // blocks_d).to(tl.int64)
    cols = (program % blocks_d) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = cols < WIDTH
    ns = tl.arange(0, PAD_N)
    tile = ns[:, None] * WIDTH + cols[None, :]
    whole = inside[None, :] | (ns < 0)[:, None]
    a = tl.load(A2 + tile, mask=whole, other=0.0)
    state = tl.zeros([PAD_N, BLOCK_D], tl.float32)
    if boundary is not None:
        state = tl.load(boundary + row * (PAD_N * WIDTH) + tile, mask=whole, other=0.0)
    for i in range(0, n_segments):
        part = i
        if REVERSE:
            part = n_segments - 1 - i
        address = states + (row * n_segments + part) * (PAD_N * WIDTH) + tile
        own = tl.load(address, mask=whole, other=0.0)
        tl.store(address, state, mask=whole)
        elapsed = tl.load(total_step + (row * n_segments + part) * WIDTH + cols, mask=inside, other=0.0)
        state = tl.exp2(elapsed[None, :] * a) * state + own
    if final is not None:
        tl.store(final + row * (PAD_N * WIDTH) + tile, state, mask=whole)


@triton.jit
def scan_backward_kernel(
    x,
    delta,
    A2,
    B,
    C,
    D,
    z,
    delta_bias,
    lengths,
    checkpoints,
    y_ungated,
    grad_y,
    carry,
    scratch,
    grad_x,
    grad_delta,
    grad_z,
    grad_A,
    grad_B,
    grad_C,
    grad_D,
    grad_bias,
    batch,
    length,
    x_b,
    x_l,
    delta_b,
    delta_l,
    B_b,
    B_l,
    C_b,
    C_l,
    z_b,
    z_l,
    grad_y_b,
    grad_y_l,
    segment,
    n_segments,
    WIDTH: tl.constexpr,
    N: tl.constexpr,
    PAD_N: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
    CHUNK: tl.constexpr,
    SOFTPLUS: tl.constexpr,
    UNIT: tl.constexpr,
):
    blocks_d = tl.cdiv(WIDTH, BLOCK_D)
    program = tl.program_id(0)
    block = program % blocks_d
    part = (program // blocks_d) % n_segments
    row = (program // blocks_d // n_segments).to(tl.int64)
    start = part * segment
    end = tl.minimum(start + segment, length)
    if lengths is not None:
        end = tl.minimum(end, tl.load(lengths + row).to(tl.int32))

    # Two tiles. [BLOCK_N, BLOCK_D] for the states: everything that depends on a channel only is repeated over its rows
    # (`lane` is the channel within the block). [CHUNK, BLOCK_D] for what depends on position and channel only.
    rows = tl.arange(0, BLOCK_N)[:, None] + tl.zeros([BLOCK_N, BLOCK_D], tl.int32)
    lane = tl.arange(0, BLOCK_D)[None, :] + tl.zeros([BLOCK_N, BLOCK_D], tl.int32)
    channel = block * BLOCK_D + lane
    inside = (channel < WIDTH) | (WIDTH % BLOCK_D == 0)
    offsets = tl.arange(0, CHUNK)[:, None] + tl.zeros([CHUNK, BLOCK_D], tl.int32)
    chunk_lane = tl.arange(0, BLOCK_D)[None, :] + tl.zeros([CHUNK, BLOCK_D], tl.int32)
    cols = block * BLOCK_D + chunk_lane
    in_cols = (cols < WIDTH) | (WIDTH % BLOCK_D == 0)

    x += row * x_b
    delta += row * delta_b
    B += row * B_b * UNIT
    C += row * C_b * UNIT
    grad_y += row * grad_y_b
    grad_x += row * length * WIDTH
    grad_delta += row * length * WIDTH
    grad_B += (block * batch + row) * length * N
    grad_C += (block * batch + row) * length * N
    states_size = tl.full([], PAD_N * WIDTH, tl.int64)
    checkpoints += row * tl.cdiv(length, CHUNK) * states_size
    tile = rows * WIDTH + channel
    carry += (row * n_segments + part) * (PAD_N * WIDTH)
    grad_A += (row * n_segments + part) * (PAD_N * WIDTH)
    if z is not None:
        z += row * z_b
        y_ungated += row * length * WIDTH
        grad_z += row * length * WIDTH

    # What every lane of the inner loop reads lies in six slots of this program's own, small enough for the first-level
    # cache: step; step * x, later from_B; gated gradient; from_A; and the sums for D and delta_bias.
    slot: tl.constexpr = CHUNK * BLOCK_D
    scratch += program * tl.full([], 6 * slot, tl.int64)
    own = scratch + offsets * BLOCK_D + chunk_lane
    shared = scratch + lane
    if D is not None:
        tl.store(own + 4 * slot, tl.zeros([CHUNK, BLOCK_D], tl.float32))
    if delta_bias is not None:
        tl.store(own + 5 * slot, tl.zeros([CHUNK, BLOCK_D], tl.float32))

    first_chunk = start // CHUNK
    last_chunk = tl.cdiv(end, CHUNK)
    for i in range(0, last_chunk - first_chunk):
        chunk = last_chunk - 1 - i
        origin = chunk * CHUNK
        t = origin + offsets
        live = in_cols & (t < end)
        raw = tl.load(delta + t * delta_l + cols, mask=live, other=0.0).to(tl.float32)
        value = tl.load(x + t * x_l + cols, mask=live, other=0.0).to(tl.float32)
        grad = tl.load(grad_y + t * grad_y_l + cols, mask=live, other=0.0).to(tl.float32)
        if delta_bias is not None:
            raw += tl.load(delta_bias + cols, mask=in_cols, other=0.0)
        step = raw
        if SOFTPLUS:
            step = softplus(raw)
        # A step of zero past the row's end leaves the state and its gradient as they are.
        step = tl.where(live, step, 0.0)
        if z is not None:
            gate = tl.load(z + t * z_l + cols, mask=live, other=0.0).to(tl.float32)
            plain = tl.load(y_ungated + t * WIDTH + cols, mask=live, other=0.0).to(tl.float32)
            share = sigmoid(gate)
            slope = share * (1.0 + gate * (1.0 - share))
            tl.store(grad_z + t * WIDTH + cols, grad * plain * slope, mask=live)
            grad *= gate * share
        if D is not None:
            tl.store(own + 4 * slot, tl.load(own + 4 * slot) + grad * value)
        tl.store(own, step)
        tl.store(own + slot, step * value)
        tl.store(own + 2 * slot, grad)
        tl.debug_barrier()

        from_B = ()
        from_A = ()
        for _ in tl.static_range(CHUNK):
            from_B = from_B + (tl.zeros([BLOCK_N, BLOCK_D], tl.float32),)
            from_A = from_A + (tl.zeros([BLOCK_N, BLOCK_D], tl.float32),)
        here = checkpoints + chunk * states_size
        for n0 in range(0, PAD_N, BLOCK_N):
            ns = n0 + tl.arange(0, BLOCK_N)
            a = tl.load(A2 + n0 * WIDTH + tile, mask=inside, other=0.0)
            state = tl.load(here + n0 * WIDTH + tile, mask=inside, other=0.0)
            flow = tl.load(carry + n0 * WIDTH + tile, mask=inside, other=0.0)
            sum_A = tl.load(grad_A + n0 * WIDTH + tile, mask=inside, other=0.0)
            b_at = B + origin * B_l * UNIT + ns
            c_at = C + (origin + CHUNK - 1) * C_l * UNIT + ns
            grad_b_at = grad_B + origin * N + ns
            grad_c_at = grad_C + origin * N + ns
            states = (state,)
            decays = ()
            bs = ()
            for k in tl.static_range(CHUNK):
                valid = ns < tl.where(origin + k < end, N, 0)
                b = tl.load(b_at, mask=valid, other=0.0).to(tl.float32)[:, None]
                b_at += B_l * UNIT
                decay = tl.exp2(tl.load(shared + k * BLOCK_D) * a)
                state = decay * state + tl.load(shared + slot + k * BLOCK_D) * b
                states = states + (state,)
                decays = decays + (decay,)
                bs = bs + (b,)
            sums_B = ()
            sums_A = ()
            for k in tl.static_range(CHUNK - 1, -1, -1):
                valid = ns < tl.where(origin + k < end, N, 0)
                c = tl.load(c_at, mask=valid, other=0.0).to(tl.float32)[:, None]
                c_at -= C_l * UNIT
                grad_k = tl.load(shared + 2 * slot + k * BLOCK_D)
                tl.store(grad_c_at + k * N, tl.sum(grad_k * states[k + 1], 1), mask=valid)
                flow = grad_k * c + flow
                tl.store(grad_b_at + k * N, tl.sum(flow * tl.load(shared + slot + k * BLOCK_D), 1), mask=valid)
                sums_B = (from_B[k] + flow * bs[k],) + sums_B
                flow = flow * decays[k]
                weight = flow * states[k]
                sums_A = (from_A[k] + weight * a,) + sums_A
                sum_A += weight * tl.load(shared + k * BLOCK_D)
            from_B = sums_B
            from_A = sums_A
            tl.store(carry + n0 * WIDTH + tile, flow, mask=inside)
            tl.store(grad_A + n0 * WIDTH + tile, sum_A, mask=inside)

        tl.debug_barrier()
        for k in tl.static_range(CHUNK):
            total_B = tl.broadcast_to(tl.sum(from_B[k], 0, keep_dims=True), [BLOCK_N, BLOCK_D])
            total_A = tl.broadcast_to(tl.sum(from_A[k], 0, keep_dims=True), [BLOCK_N, BLOCK_D])
            tl.store(shared + slot + k * BLOCK_D, total_B, mask=rows == 0)
            tl.store(shared + 3 * slot + k * BLOCK_D, total_A, mask=rows == 0)
        tl.debug_barrier()
        value = tl.load(x + t * x_l + cols, mask=live, other=0.0).to(tl.float32)
        total_B = tl.load(own + slot)
        grad_step = value * total_B + 0.6931471805599453 * tl.load(own + 3 * slot)
        if SOFTPLUS:
            raw = tl.load(delta + t * delta_l + cols, mask=live, other=0.0).to(tl.float32)
            if delta_bias is not None:
                raw += tl.load(delta_bias + cols, mask=in_cols, other=0.0)
            grad_step *= sigmoid(raw)
        if delta_bias is not None:
            tl.store(own + 5 * slot, tl.load(own + 5 * slot) + tl.where(live, grad_step, 0.0))
        tl.store(grad_delta + t * WIDTH + cols, grad_step, mask=live)
        grad_value = tl.load(own) * total_B
        if D is not None:
            grad_value += tl.load(D + cols, mask=in_cols, other=0.0) * tl.load(own + 2 * slot)
        tl.store(grad_x + t * WIDTH + cols, grad_value, mask=live)
        tl.debug_barrier()

    first = in_cols & (offsets == 0)
    at = (row * n_segments + part) * WIDTH + cols
    if D is not None:
        total = tl.sum(tl.load(own + 4 * slot), 0, keep_dims=True)
        tl.store(grad_D + at, tl.broadcast_to(total, [CHUNK, BLOCK_D]), mask=first)
    if delta_bias is not None:
        total = tl.sum(tl.load(own + 5 * slot), 0, keep_dims=True)
        tl.store(grad_bias + at, tl.broadcast_to(total, [CHUNK, BLOCK_D]), mask=first)
