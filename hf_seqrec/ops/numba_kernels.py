"""
The CPU kernels: vectors of channels as a numba type, the selective scan and the causal convolution written with them.

LLVM vectorises such loops now and then; with the vector as a type it always does. All kernels and their helpers are in
this one file on purpose: numba compiles a cached function again when its own file changes, not when an imported one
does.

Tensors come as byte addresses and byte strides, so that a chunk of a wider projection is read where it lies; float32,
channels contiguous. A block is `WIDTH` neighbouring channels, one vector; the last one may be partly empty.
"""

import operator
from collections.abc import Callable
from typing import Any

import numba
import numba.core.types as types
from llvmlite import ir
from numba.core.cgutils import get_or_insert_function
from numba.core.imputils import lower_builtin
from numba.core.registry import cpu_target
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model

if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]  # numba sets it from the environment
    raise ImportError("NUMBA_DISABLE_JIT is set, and these kernels only run compiled")

_triple, _, _features = cpu_target.target_context.codegen().magic_tuple()
_IS_X86 = _triple.startswith(("x86_64", "i686", "i386"))
# Lanes of a vector: one AVX-512 register, elsewhere as many registers as it takes for 8.
_IS_AVX512 = "+avx512f" in _features.split(",")
WIDTH = 16 if _IS_AVX512 else 8
# Positions between two states that the forward keeps for the backward.
CHUNK = 32
# Numbers that dropout takes in a run, a multiple of `WIDTH`.
DROPOUT_RUN = 4096

_BYTES = 4 * WIDTH
_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FLOATS, _INTS = ir.VectorType(_FLOAT, WIDTH), ir.VectorType(_INT, WIDTH)
_HALF, _HALVES = ir.IntType(16), ir.VectorType(ir.IntType(16), WIDTH)
# Lets a product and a sum become one fused instruction; nothing is reordered.
_FUSE = ("contract",)


class _Vector(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"float32x{WIDTH}")


_vector = _Vector()


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: _Vector) -> None:
        super().__init__(manager, numba_type, _FLOATS)


def _splat(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    first = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), value, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, ir.Constant(_FLOATS, ir.Undefined), ir.Constant(_INTS, [0] * WIDTH))


def _define_operator(function: Callable, instruction: str) -> None:
    """Give `function` a meaning for two vectors, and for a vector and a number on either side."""

    @infer_global(function)
    class _Typing(AbstractTemplate):
        def generic(self, args: tuple, kws: dict) -> Any:
            numbers = (types.Float, _Vector)
            if len(args) == 2 and _vector in args and all(isinstance(arg, numbers) for arg in args):
                return signature(_vector, *args)
            return None

    def lower(context: Any, builder: ir.IRBuilder, sig: Any, args: tuple) -> ir.Value:
        left, right = (
            value if arg == _vector else _splat(builder, context.cast(builder, value, arg, types.float32))
            for value, arg in zip(args, sig.args, strict=True)
        )
        return getattr(builder, instruction)(left, right, flags=_FUSE)

    for left, right in ((_Vector, _Vector), (_Vector, types.Float), (types.Float, _Vector)):
        lower_builtin(function, left, right)(lower)


for _function, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _define_operator(_function, _instruction)


def _pointer(builder: ir.IRBuilder, address: ir.Value, pointee: ir.Type) -> ir.Value:
    return builder.inttoptr(address, ir.PointerType(pointee))


@intrinsic
def _load(typingctx, address):  # type: ignore[no-untyped-def]
    """Read a vector."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return builder.load(_pointer(builder, args[0], _FLOATS), align=4, typ=_FLOATS)

    return _vector(types.int64), codegen


@intrinsic
def _store(typingctx, address, value):  # type: ignore[no-untyped-def]
    """Write a vector."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        builder.store(args[1], _pointer(builder, args[0], _FLOATS), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, _vector), codegen


@intrinsic
def _load_one(typingctx, address):  # type: ignore[no-untyped-def]
    """Read one number."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return builder.load(_pointer(builder, args[0], _FLOAT), align=4, typ=_FLOAT)

    return types.float32(types.int64), codegen


@intrinsic
def _store_one(typingctx, address, value):  # type: ignore[no-untyped-def]
    """Write one number."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        builder.store(args[1], _pointer(builder, args[0], _FLOAT), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, types.float32), codegen


def _upper_half(bits: ir.VectorType) -> ir.Constant:
    return ir.Constant(bits, [16] * WIDTH)


@intrinsic
def _load_halves(typingctx, address):  # type: ignore[no-untyped-def]
    """Read a vector of bfloat16, which is the upper half of a float32."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        halves = builder.load(_pointer(builder, args[0], _HALVES), align=2, typ=_HALVES)
        bits = builder.shl(builder.zext(halves, _INTS), _upper_half(_INTS))
        return builder.bitcast(bits, _FLOATS)

    return _vector(types.int64), codegen


@intrinsic
def _store_halves(typingctx, address, value):  # type: ignore[no-untyped-def]
    """Write a vector as bfloat16, rounded to the nearest, to even where two are as near; it must be a number."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        bits = builder.bitcast(args[1], _INTS)
        odd = builder.and_(builder.lshr(bits, _upper_half(_INTS)), ir.Constant(_INTS, [1] * WIDTH))
        bits = builder.add(builder.add(bits, ir.Constant(_INTS, [0x7FFF] * WIDTH)), odd)
        halves = builder.trunc(builder.lshr(bits, _upper_half(_INTS)), _HALVES)
        builder.store(halves, _pointer(builder, args[0], _HALVES), align=2)
        return context.get_dummy_value()

    return types.void(types.int64, _vector), codegen


@intrinsic
def _load_half(typingctx, address):  # type: ignore[no-untyped-def]
    """Read the bits of one bfloat16."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return builder.load(_pointer(builder, args[0], _HALF), align=2, typ=_HALF)

    return types.int16(types.int64), codegen


@intrinsic
def _store_half(typingctx, address, value):  # type: ignore[no-untyped-def]
    """Write the bits of one bfloat16."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        builder.store(args[1], _pointer(builder, args[0], _HALF), align=2)
        return context.get_dummy_value()

    return types.void(types.int64, types.int16), codegen


@intrinsic
def _load_int(typingctx, address):  # type: ignore[no-untyped-def]
    """Read an int64."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return builder.load(_pointer(builder, args[0], ir.IntType(64)), align=8, typ=ir.IntType(64))

    return types.int64(types.int64), codegen


@intrinsic
def _fill(typingctx, value):  # type: ignore[no-untyped-def]
    """Vector with one number in every lane."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return _splat(builder, args[0])

    return _vector(types.float32), codegen


@intrinsic
def _larger(typingctx, bound, value):  # type: ignore[no-untyped-def]
    """Lane by lane the larger of a bound and a value; a value that is not a number stays so."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        bound = _splat(builder, context.cast(builder, args[0], sig.args[0], types.float32))
        return builder.select(builder.fcmp_ordered(">", bound, args[1]), bound, args[1])

    return _vector(types.float64, _vector), codegen


@intrinsic
def _smaller(typingctx, bound, value):  # type: ignore[no-untyped-def]
    """Lane by lane the smaller of a bound and a value; a value that is not a number stays so."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        bound = _splat(builder, context.cast(builder, args[0], sig.args[0], types.float32))
        return builder.select(builder.fcmp_ordered("<", bound, args[1]), bound, args[1])

    return _vector(types.float64, _vector), codegen


@intrinsic
def _larger_lanes(typingctx, left, right):  # type: ignore[no-untyped-def]
    """Lane by lane the larger; where the right one is not a number, that."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return _vector(_vector, _vector), codegen


@intrinsic
def _lane(typingctx, value, lane):  # type: ignore[no-untyped-def]
    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        return builder.extract_element(args[0], builder.trunc(args[1], _INT))

    return types.float32(_vector, types.int64), codegen


@intrinsic
def _magnitude(typingctx, value):  # type: ignore[no-untyped-def]
    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        bits = builder.bitcast(args[0], _INTS)
        return builder.bitcast(builder.and_(bits, ir.Constant(_INTS, [0x7FFFFFFF] * WIDTH)), _FLOATS)

    return _vector(_vector), codegen


@intrinsic
def _round(typingctx, value):  # type: ignore[no-untyped-def]
    """To the nearest integer."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        kind = ir.FunctionType(_FLOATS, [_FLOATS])
        return builder.call(get_or_insert_function(builder.module, kind, f"llvm.rint.v{WIDTH}f32"), args)

    return _vector(_vector), codegen


@intrinsic
def _keep_or_drop(typingctx, first, key, other_key, dropped, scale):  # type: ignore[no-untyped-def]
    """
    For the numbers from `first` on, `scale` or zero: zero where 32 bits, made of a place and two keys, are too small.

    They are mixed by shifts and products as in Wellons' hash (2018, https://nullprogram.com/blog/2018/07/31/), the
    second key before each product.
    """

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        first, key, other_key, dropped = (
            builder.shuffle_vector(
                builder.insert_element(
                    ir.Constant(_INTS, ir.Undefined), builder.trunc(arg, _INT), ir.Constant(_INT, 0)
                ),
                ir.Constant(_INTS, ir.Undefined),
                ir.Constant(_INTS, [0] * WIDTH),
            )
            for arg in args[:4]
        )
        bits = builder.add(builder.add(first, ir.Constant(_INTS, list(range(WIDTH)))), key)
        for shift, factor in ((16, 0x21F0AAAD), (15, 0xD35A2D97), (15, None)):
            bits = builder.xor(bits, builder.lshr(bits, ir.Constant(_INTS, [shift] * WIDTH)))
            if factor is not None:
                bits = builder.mul(builder.xor(bits, other_key), ir.Constant(_INTS, [factor] * WIDTH))
        is_kept = builder.icmp_unsigned(">=", bits, dropped)
        return builder.select(is_kept, _splat(builder, args[4]), ir.Constant(_FLOATS, [0.0] * WIDTH))

    return _vector(*[types.int64] * 4, types.float32), codegen


@intrinsic
def _scale(typingctx, value, shift):  # type: ignore[no-untyped-def]
    """`value * 2**k`: `shift` is k with AVX-512; elsewhere its low bits spell k, and the result must be normal."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        if _IS_AVX512:
            mask, rounding = ir.IntType(16), ir.IntType(32)
            kind = ir.FunctionType(_FLOATS, [_FLOATS, _FLOATS, _FLOATS, mask, rounding])
            scalef = get_or_insert_function(builder.module, kind, "llvm.x86.avx512.mask.scalef.ps.512")
            # All lanes, the current rounding mode.
            return builder.call(scalef, [*args, args[0], ir.Constant(mask, 0xFFFF), ir.Constant(rounding, 4)])
        bits, exponent = (builder.bitcast(arg, _INTS) for arg in args)
        exponent = builder.shl(exponent, ir.Constant(_INTS, [23] * WIDTH))
        return builder.bitcast(builder.add(bits, exponent), _FLOATS)

    return _vector(_vector, _vector), codegen


@intrinsic
def _flush(typingctx, value):  # type: ignore[no-untyped-def]
    """Denormal numbers to zero, where the processor was not told to do it (see `_flush_denormals`)."""

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        if _IS_X86:
            return args[0]
        exponent = builder.and_(builder.bitcast(args[0], _INTS), ir.Constant(_INTS, [0x7F800000] * WIDTH))
        is_small = builder.icmp_unsigned("==", exponent, ir.Constant(_INTS, [0] * WIDTH))
        return builder.select(is_small, ir.Constant(_FLOATS, [0.0] * WIDTH), args[0])

    return _vector(_vector), codegen


def _make_fold(parts: int) -> Any:
    """
    Make the sum of two vectors that leaves `parts` sums, in runs of `WIDTH / parts` lanes, of twice that many lanes.

    With 4 lanes and 2 parts, `(l0 + l2, l1 + l3, r0 + r2, r1 + r3)`.
    """
    size = WIDTH // parts
    # Of both vectors laid end to end, every other run of `size` lanes.
    runs = ([run * size + lane for run in range(first, 2 * parts, 2) for lane in range(size)] for first in (0, 1))
    masks = [ir.Constant(_INTS, lanes) for lanes in runs]

    @intrinsic
    def fold(typingctx, left, right):  # type: ignore[no-untyped-def]
        def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
            return builder.fadd(*(builder.shuffle_vector(*args, mask) for mask in masks))

        return _vector(_vector, _vector), codegen

    return fold


_fold_halves, _fold_quarters = _make_fold(2), _make_fold(4)


def _control_register(builder: ir.IRBuilder, name: str, slot: ir.Value) -> None:
    kind = ir.FunctionType(ir.VoidType(), [ir.PointerType(ir.IntType(8))])
    function = get_or_insert_function(builder.module, kind, f"llvm.x86.sse.{name}")
    builder.call(function, [builder.bitcast(slot, ir.PointerType(ir.IntType(8)))])


@intrinsic
def _flush_denormals(typingctx):  # type: ignore[no-untyped-def]
    """
    Have this thread's processor treat denormal numbers as zero, and return the mode it was in.

    A gradient that fades away over a long history spends most of it as a denormal number, which costs x86 a hundred
    cycles an operation.
    """

    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        if not _IS_X86:
            return ir.Constant(_INT, 0)
        slot = builder.alloca(_INT)
        _control_register(builder, "stmxcsr", slot)
        before = builder.load(slot, typ=_INT)
        # Bit 15 flushes results, bit 6 operands.
        builder.store(builder.or_(before, ir.Constant(_INT, 0x8040)), slot)
        _control_register(builder, "ldmxcsr", slot)
        return before

    return types.int32(), codegen


@intrinsic
def _restore_denormals(typingctx, before):  # type: ignore[no-untyped-def]
    def codegen(context, builder, sig, args):  # type: ignore[no-untyped-def]
        if _IS_X86:
            slot = builder.alloca(_INT)
            builder.store(args[0], slot)
            _control_register(builder, "ldmxcsr", slot)
        return context.get_dummy_value()

    return types.void(types.int32), codegen


_helper = numba.njit(error_model="numpy")


@_helper
def _exp2(value):  # type: ignore[no-untyped-def]
    """`2**value` to 1 or 2 in the last place; exactly 1 at 0, where a state spends its long memories."""
    if _IS_AVX512:
        whole = shift = _round(value)
    else:
        # Without the instructions that round and scale: stay at 2**-126 and 2**127 beyond the range of float32, and
        # add 1.5 * 2**23, which rounds to an integer and leaves it in the low bits.
        value = _smaller(127.0, _larger(-126.0, value))
        shift = value + 12582912.0
        whole = shift - 12582912.0
    f = value - whole
    # Minimax for the relative error on [-0.5, 0.5] given the first two coefficients; 3e-9.
    p = 1.53211633e-4 * f + 1.33901658e-3
    p = p * f + 9.61852633e-3
    p = p * f + 5.55036225e-2
    p = p * f + 2.40226475e-1
    p = p * f + 6.93147181e-1
    p = p * f + 1.0
    return _scale(p, shift)


@_helper
def _exp(value):  # type: ignore[no-untyped-def]
    return _exp2(value * 1.4426950408889634)


@_helper
def _sigmoid(value):  # type: ignore[no-untyped-def]
    return 1.0 / (1.0 + _exp(value * -1.0))


@_helper
def _softplus(value):  # type: ignore[no-untyped-def]
    """`log(1 + exp(value))`, to a relative error of 1e-7 also where it is tiny."""
    e = _exp(_magnitude(value) * -1.0)
    # log(1 + e) = 2 atanh(s), s in (0, 1/3]; minimax in s**2, 4e-9.
    s = e / (2.0 + e)
    t = s * s
    p = 2.80121663e-1 * t + 2.80017717e-1
    p = p * t + 4.00215291e-1
    p = p * t + 6.66664163e-1
    p = p * t + 2.0
    return _larger(0.0, value) + p * s


@_helper
def _load_part(address, lanes, spare):  # type: ignore[no-untyped-def]
    """Read the first `lanes` channels of a block, zero in the others; `spare` is room for one vector."""
    if lanes == WIDTH:
        return _load(address)
    _store(spare, _fill(numba.float32(0)))
    for lane in range(lanes):
        _store_one(spare + 4 * lane, _load_one(address + 4 * lane))
    return _load(spare)


@_helper
def _store_part(address, value, lanes, spare):  # type: ignore[no-untyped-def]
    """Write the first `lanes` channels of a block."""
    if lanes == WIDTH:
        _store(address, value)
    else:
        _store(spare, value)
        for lane in range(lanes):
            _store_one(address + 4 * lane, _load_one(spare + 4 * lane))


@_helper
def _load_columns(address, lanes, n, padded, target, spare):  # type: ignore[no-untyped-def]
    """Read the `(lanes, n)` rows of a block's channels as n vectors, zeros up to `padded` or if the address is 0."""
    for i in range(padded):
        _store(spare, _fill(numba.float32(0)))
        if address != 0 and i < n:
            for lane in range(lanes):
                _store_one(spare + 4 * lane, _load_one(address + 4 * (lane * n + i)))
        _store(target + i * _BYTES, _load(spare))


@_helper
def _store_columns(source, lanes, n, address):  # type: ignore[no-untyped-def]
    """Write n vectors as the `(lanes, n)` rows of a block's channels."""
    for i in range(n):
        for lane in range(lanes):
            _store_one(address + 4 * (lane * n + i), _load_one(source + i * _BYTES + 4 * lane))


@_helper
def _load_A(A, d, n, padded, first_block, end_block, target, spare):  # type: ignore[no-untyped-def]
    """Read the columns of A log2(e), as exp(delta A) = 2**(delta A log2(e))."""
    for block in range(first_block, end_block):
        columns = target + block * padded * _BYTES
        _load_columns(A + 4 * n * WIDTH * block, min(WIDTH, d - block * WIDTH), n, padded, columns, spare)
        for i in range(padded):
            _store(columns + i * _BYTES, _load(columns + i * _BYTES) * 1.4426950408889634)


@_helper
def _copy_padded(source, stride, count, n, padded, target):  # type: ignore[no-untyped-def]
    """Copy the n numbers of some positions, `stride` bytes apart, zeros up to `padded`."""
    for k in range(count):
        for i in range(n):
            _store_one(target + 4 * (k * padded + i), _load_one(source + k * stride + 4 * i))
        for i in range(n, padded):
            _store_one(target + 4 * (k * padded + i), numba.float32(0))


@_helper
def _load_four(address):  # type: ignore[no-untyped-def]
    return _load(address), _load(address + _BYTES), _load(address + 2 * _BYTES), _load(address + 3 * _BYTES)


@_helper
def _store_four(address, v0, v1, v2, v3):  # type: ignore[no-untyped-def]
    _store(address, v0)
    _store(address + _BYTES, v1)
    _store(address + 2 * _BYTES, v2)
    _store(address + 3 * _BYTES, v3)


@_helper
def _fill_four(address):  # type: ignore[no-untyped-def]
    """Four neighbouring numbers, each in every lane of a vector."""
    return (
        _fill(_load_one(address)),
        _fill(_load_one(address + 4)),
        _fill(_load_one(address + 8)),
        _fill(_load_one(address + 12)),
    )


@_helper
def _sum_four(v0, v1, v2, v3):  # type: ignore[no-untyped-def]
    """Sums over the lanes of four vectors, as far as a quarter of a vector for each."""
    return _fold_quarters(_fold_halves(v0, v1), _fold_halves(v2, v3))


@_helper
def _sum_quarter(address):  # type: ignore[no-untyped-def]
    total = numba.float32(0)
    for lane in range(WIDTH // 4):
        total += _load_one(address + 4 * lane)
    return total


@_helper
def _row_length(lengths, row, length):  # type: ignore[no-untyped-def]
    return length if lengths == 0 else min(max(_load_int(lengths + 8 * row), 0), length)


# A tensor of (b, l, channels): address (0 if absent), bytes from row to row, bytes from position to position.
_operand = types.UniTuple(types.int64, 3)
# A share of the work: first row, end of rows, first block, end of blocks, address of its scratch.
_share = types.UniTuple(types.int64, 5)
# Sizes: length, d, n (of the scan) or width (of the convolution).
_sizes = types.UniTuple(types.int64, 3)


def _kernel(*argument_types: Any) -> Callable[[Callable], Callable]:
    """Compile for these arguments, from the cache if possible, without the interpreter lock."""

    def compile_function(function: Callable) -> Callable:
        options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
        try:
            return numba.njit(types.void(*argument_types), cache=True, **options)(function)
        except RuntimeError as error:
            # Neither the package's folder nor the user's can be written: compile in every process.
            if "cannot cache function" not in str(error):
                raise
            return numba.njit(types.void(*argument_types), **options)(function)

    return compile_function


def scan_forward_scratch(d: int, n: int) -> int:
    """Vectors of scratch that `scan_forward` needs per share."""
    blocks, columns = -(-d // WIDTH), padded_states(n)
    return 1 + 2 * blocks * columns + CHUNK * 3 + 2 * -(-CHUNK * columns // WIDTH)


def padded_states(n: int) -> int:
    """States are taken four at a time: with four in registers, what they share is read once."""
    return -(-n // 4) * 4


@_kernel(*[_operand] * 6, *[types.int64] * 7, types.boolean, _sizes, _share)
def scan_forward(x, delta, z, B, C, y, A, D, bias, initial, final, checkpoints, lengths, softplus, sizes, share):  # type: ignore[no-untyped-def]
    """
    Write `y` and the final states of some rows and blocks.

    `checkpoints` (0 if not wanted): `(b, chunks, blocks, padded n, WIDTH)`, the state before each chunk.
    """
    length, d, n = sizes
    first_row, end_row, first_block, end_block, spare = share
    blocks = (d + WIDTH - 1) // WIDTH
    chunks = (length + CHUNK - 1) // CHUNK
    padded = (n + 3) // 4 * 4
    columns = padded * _BYTES
    A_columns = spare + _BYTES
    states = A_columns + blocks * columns
    steps = states + blocks * columns
    inputs = steps + CHUNK * _BYTES  # step * x
    totals = inputs + CHUNK * _BYTES  # D x + sum of C h
    B_chunk = totals + CHUNK * _BYTES
    C_chunk = B_chunk + CHUNK * padded * 4
    zero = _fill(numba.float32(0))
    mode = _flush_denormals()

    _load_A(A, d, n, padded, first_block, end_block, A_columns, spare)
    for row in range(first_row, end_row):
        end = _row_length(lengths, row, length)
        for block in range(first_block, end_block):
            lanes = min(WIDTH, d - block * WIDTH)
            source = 0 if initial == 0 else initial + 4 * n * (row * d + block * WIDTH)
            _load_columns(source, lanes, n, padded, states + block * columns, spare)

        for chunk in range((end + CHUNK - 1) // CHUNK):
            start = chunk * CHUNK
            count = min(CHUNK, end - start)
            _copy_padded(B[0] + row * B[1] + start * B[2], B[2], count, n, padded, B_chunk)
            _copy_padded(C[0] + row * C[1] + start * C[2], C[2], count, n, padded, C_chunk)
            for block in range(first_block, end_block):
                lanes = min(WIDTH, d - block * WIDTH)
                offset = block * _BYTES
                a, h = A_columns + block * columns, states + block * columns
                if checkpoints != 0:
                    kept = checkpoints + ((row * chunks + chunk) * blocks + block) * columns
                    for i in range(padded):
                        _store(kept + i * _BYTES, _load(h + i * _BYTES))
                D_v = zero if D == 0 else _load_part(D + offset, lanes, spare)
                bias_v = zero if bias == 0 else _load_part(bias + offset, lanes, spare)
                for k in range(count):
                    t = start + k
                    x_v = _load_part(x[0] + row * x[1] + t * x[2] + offset, lanes, spare)
                    step = _load_part(delta[0] + row * delta[1] + t * delta[2] + offset, lanes, spare) + bias_v
                    if softplus:
                        step = _softplus(step)
                    _store(steps + k * _BYTES, step)
                    _store(inputs + k * _BYTES, step * x_v)
                    _store(totals + k * _BYTES, D_v * x_v)

                for i in range(0, padded, 4):
                    a0, a1, a2, a3 = _load_four(a + i * _BYTES)
                    h0, h1, h2, h3 = _load_four(h + i * _BYTES)
                    for k in range(count):
                        step, u = _load(steps + k * _BYTES), _load(inputs + k * _BYTES)
                        b0, b1, b2, b3 = _fill_four(B_chunk + 4 * (k * padded + i))
                        c0, c1, c2, c3 = _fill_four(C_chunk + 4 * (k * padded + i))
                        h0 = _flush(_exp2(step * a0) * h0 + u * b0)
                        h1 = _flush(_exp2(step * a1) * h1 + u * b1)
                        h2 = _flush(_exp2(step * a2) * h2 + u * b2)
                        h3 = _flush(_exp2(step * a3) * h3 + u * b3)
                        total = _load(totals + k * _BYTES) + h0 * c0 + h1 * c1 + h2 * c2 + h3 * c3
                        _store(totals + k * _BYTES, total)
                    _store_four(h + i * _BYTES, h0, h1, h2, h3)

                for k in range(count):
                    t = start + k
                    total = _load(totals + k * _BYTES)
                    if z[0] != 0:
                        z_v = _load_part(z[0] + row * z[1] + t * z[2] + offset, lanes, spare)
                        total = total * (z_v * _sigmoid(z_v))
                    _store_part(y[0] + row * y[1] + t * y[2] + offset, total, lanes, spare)

        for block in range(first_block, end_block):
            lanes = min(WIDTH, d - block * WIDTH)
            _store_columns(states + block * columns, lanes, n, final + 4 * n * (row * d + block * WIDTH))
            for t in range(end, length):
                _store_part(y[0] + row * y[1] + t * y[2] + block * _BYTES, zero, lanes, spare)

    _restore_denormals(mode)


def scan_backward_scratch(d: int, n: int) -> int:
    """Vectors of scratch that `scan_backward` needs per share."""
    blocks, columns = -(-d // WIDTH), padded_states(n)
    per_chunk = 4 * 2 + 7 + columns // 2
    return 1 + blocks * (3 * columns + 2) + CHUNK * per_chunk + 2 * -(-CHUNK * columns // WIDTH)


@_kernel(*[_operand] * 11, *[types.int64] * 10, types.boolean, _sizes, _share)
def scan_backward(  # type: ignore[no-untyped-def]
    x, delta, z, B, C, grad_y, grad_x, grad_delta, grad_z, grad_B, grad_C,
    A, D, bias, checkpoints, grad_final, grad_A, grad_D, grad_bias, grad_initial, lengths,
    softplus, sizes, share,
):  # fmt: skip
    """
    Write the gradients of some rows and blocks; those of A, D, bias, B and C only from this share.

    A chunk's states are computed again from its checkpoint, four columns at a time, so that they are still in the
    first-level cache when the chunk is gone through backwards.
    """
    length, d, n = sizes
    first_row, end_row, first_block, end_block, spare = share
    blocks = (d + WIDTH - 1) // WIDTH
    chunks = (length + CHUNK - 1) // CHUNK
    padded = (n + 3) // 4 * 4
    columns = padded * _BYTES
    A_columns = spare + _BYTES
    grad_A_columns = A_columns + blocks * columns
    grad_states = grad_A_columns + blocks * columns  # d loss / d state, what later positions left
    grad_D_sums = grad_states + blocks * columns
    grad_bias_sums = grad_D_sums + blocks * _BYTES
    # Of one chunk, one block and four states: what the way back needs again.
    before = grad_bias_sums + blocks * _BYTES  # state before each position
    decays = before + CHUNK * 4 * _BYTES
    # Of one chunk and one block.
    steps = decays + CHUNK * 4 * _BYTES
    slopes = steps + CHUNK * _BYTES  # of softplus
    inputs = slopes + CHUNK * _BYTES  # step * x
    totals = inputs + CHUNK * _BYTES  # D x + sum of C h
    grad_totals = totals + CHUNK * _BYTES  # d loss / d totals
    grad_inputs = grad_totals + CHUNK * _BYTES
    grad_steps = grad_inputs + CHUNK * _BYTES
    # Of one chunk: a quarter of the lanes for each of four states, summed over blocks.
    grad_B_sums = grad_steps + CHUNK * _BYTES
    grad_C_sums = grad_B_sums + CHUNK * columns // 4
    B_chunk = grad_C_sums + CHUNK * columns // 4
    C_chunk = B_chunk + CHUNK * padded * 4
    zero = _fill(numba.float32(0))
    mode = _flush_denormals()

    _load_A(A, d, n, padded, first_block, end_block, A_columns, spare)
    for block in range(first_block, end_block):
        for i in range(padded):
            _store(grad_A_columns + block * columns + i * _BYTES, zero)
        _store(grad_D_sums + block * _BYTES, zero)
        _store(grad_bias_sums + block * _BYTES, zero)

    for row in range(first_row, end_row):
        end = _row_length(lengths, row, length)
        for block in range(first_block, end_block):
            lanes = min(WIDTH, d - block * WIDTH)
            source = 0 if grad_final == 0 else grad_final + 4 * n * (row * d + block * WIDTH)
            _load_columns(source, lanes, n, padded, grad_states + block * columns, spare)
            for t in range(end, length):
                offset = t * grad_x[2] + block * _BYTES
                _store_part(grad_x[0] + row * grad_x[1] + offset, zero, lanes, spare)
                _store_part(grad_delta[0] + row * grad_delta[1] + offset, zero, lanes, spare)
                if z[0] != 0:
                    _store_part(grad_z[0] + row * grad_z[1] + offset, zero, lanes, spare)
        for t in range(end, length):
            for i in range(n):
                _store_one(grad_B[0] + row * grad_B[1] + t * grad_B[2] + 4 * i, numba.float32(0))
                _store_one(grad_C[0] + row * grad_C[1] + t * grad_C[2] + 4 * i, numba.float32(0))

        chunks_here = (end + CHUNK - 1) // CHUNK
        for back in range(chunks_here):
            chunk = chunks_here - 1 - back
            start = chunk * CHUNK
            count = min(CHUNK, end - start)
            _copy_padded(B[0] + row * B[1] + start * B[2], B[2], count, n, padded, B_chunk)
            _copy_padded(C[0] + row * C[1] + start * C[2], C[2], count, n, padded, C_chunk)
            for i in range(CHUNK * padded // 4):
                _store(grad_B_sums + i * _BYTES, zero)
                _store(grad_C_sums + i * _BYTES, zero)

            for block in range(first_block, end_block):
                lanes = min(WIDTH, d - block * WIDTH)
                offset = block * _BYTES
                a, grad_a = A_columns + block * columns, grad_A_columns + block * columns
                grad_h = grad_states + block * columns
                kept = checkpoints + ((row * chunks + chunk) * blocks + block) * columns
                D_v = zero if D == 0 else _load_part(D + offset, lanes, spare)
                bias_v = zero if bias == 0 else _load_part(bias + offset, lanes, spare)

                for k in range(count):
                    t = start + k
                    x_v = _load_part(x[0] + row * x[1] + t * x[2] + offset, lanes, spare)
                    step = _load_part(delta[0] + row * delta[1] + t * delta[2] + offset, lanes, spare) + bias_v
                    if softplus:
                        _store(slopes + k * _BYTES, _sigmoid(step))
                        step = _softplus(step)
                    grad = _load_part(grad_y[0] + row * grad_y[1] + t * grad_y[2] + offset, lanes, spare)
                    if z[0] != 0:
                        z_v = _load_part(z[0] + row * z[1] + t * z[2] + offset, lanes, spare)
                        grad = grad * (z_v * _sigmoid(z_v))
                    _store(steps + k * _BYTES, step)
                    _store(inputs + k * _BYTES, step * x_v)
                    _store(totals + k * _BYTES, D_v * x_v)
                    _store(grad_totals + k * _BYTES, grad)
                    _store(grad_inputs + k * _BYTES, zero)
                    _store(grad_steps + k * _BYTES, zero)

                for i in range(0, padded, 4):
                    a0, a1, a2, a3 = _load_four(a + i * _BYTES)
                    h0, h1, h2, h3 = _load_four(kept + i * _BYTES)
                    for k in range(count):
                        step, u = _load(steps + k * _BYTES), _load(inputs + k * _BYTES)
                        grad = _load(grad_totals + k * _BYTES)
                        b0, b1, b2, b3 = _fill_four(B_chunk + 4 * (k * padded + i))
                        c0, c1, c2, c3 = _fill_four(C_chunk + 4 * (k * padded + i))
                        _store_four(before + k * 4 * _BYTES, h0, h1, h2, h3)
                        e0, e1, e2, e3 = _exp2(step * a0), _exp2(step * a1), _exp2(step * a2), _exp2(step * a3)
                        _store_four(decays + k * 4 * _BYTES, e0, e1, e2, e3)
                        h0 = _flush(e0 * h0 + u * b0)
                        h1 = _flush(e1 * h1 + u * b1)
                        h2 = _flush(e2 * h2 + u * b2)
                        h3 = _flush(e3 * h3 + u * b3)
                        total = _load(totals + k * _BYTES) + h0 * c0 + h1 * c1 + h2 * c2 + h3 * c3
                        _store(totals + k * _BYTES, total)
                        sums = grad_C_sums + (k * padded + i) // 4 * _BYTES
                        _store(sums, _load(sums) + _sum_four(grad * h0, grad * h1, grad * h2, grad * h3))

                    g0, g1, g2, g3 = _load_four(grad_h + i * _BYTES)
                    s0, s1, s2, s3 = _load_four(grad_a + i * _BYTES)
                    for back_k in range(count):
                        k = count - 1 - back_k
                        step, u = _load(steps + k * _BYTES), _load(inputs + k * _BYTES)
                        grad = _load(grad_totals + k * _BYTES)
                        b0, b1, b2, b3 = _fill_four(B_chunk + 4 * (k * padded + i))
                        c0, c1, c2, c3 = _fill_four(C_chunk + 4 * (k * padded + i))
                        g0, g1, g2, g3 = g0 + grad * c0, g1 + grad * c1, g2 + grad * c2, g3 + grad * c3
                        sums = grad_B_sums + (k * padded + i) // 4 * _BYTES
                        _store(sums, _load(sums) + _sum_four(u * g0, u * g1, u * g2, u * g3))
                        grad_u = _load(grad_inputs + k * _BYTES) + g0 * b0 + g1 * b1 + g2 * b2 + g3 * b3
                        _store(grad_inputs + k * _BYTES, grad_u)
                        e0, e1, e2, e3 = _load_four(decays + k * 4 * _BYTES)
                        h0, h1, h2, h3 = _load_four(before + k * 4 * _BYTES)
                        g0, g1, g2, g3 = _flush(e0 * g0), _flush(e1 * g1), _flush(e2 * g2), _flush(e3 * g3)
                        # d loss / d (step A)
                        q0, q1, q2, q3 = g0 * h0, g1 * h1, g2 * h2, g3 * h3
                        s0, s1, s2, s3 = s0 + q0 * step, s1 + q1 * step, s2 + q2 * step, s3 + q3 * step
                        grad_step = _load(grad_steps + k * _BYTES) + q0 * a0 + q1 * a1 + q2 * a2 + q3 * a3
                        _store(grad_steps + k * _BYTES, grad_step)
                    _store_four(grad_h + i * _BYTES, g0, g1, g2, g3)
                    _store_four(grad_a + i * _BYTES, s0, s1, s2, s3)

                grad_D_sum, grad_bias_sum = _load(grad_D_sums + offset), _load(grad_bias_sums + offset)
                for k in range(count):
                    t = start + k
                    x_v = _load_part(x[0] + row * x[1] + t * x[2] + offset, lanes, spare)
                    grad_u, grad_total = _load(grad_inputs + k * _BYTES), _load(grad_totals + k * _BYTES)
                    grad_input = _load(steps + k * _BYTES) * grad_u + D_v * grad_total
                    # The columns hold A log2(e).
                    grad_raw = 0.6931471805599453 * _load(grad_steps + k * _BYTES) + x_v * grad_u
                    if softplus:
                        grad_raw = grad_raw * _load(slopes + k * _BYTES)
                    grad_D_sum = grad_D_sum + x_v * grad_total
                    grad_bias_sum = grad_bias_sum + grad_raw
                    _store_part(grad_x[0] + row * grad_x[1] + t * grad_x[2] + offset, grad_input, lanes, spare)
                    out = grad_delta[0] + row * grad_delta[1] + t * grad_delta[2] + offset
                    _store_part(out, grad_raw, lanes, spare)
                    if z[0] != 0:
                        # d SiLU(z) / d z = gate (1 + z (1 - gate))
                        z_v = _load_part(z[0] + row * z[1] + t * z[2] + offset, lanes, spare)
                        gate = _sigmoid(z_v)
                        grad = _load_part(grad_y[0] + row * grad_y[1] + t * grad_y[2] + offset, lanes, spare)
                        grad = grad * _load(totals + k * _BYTES) * (gate * (1.0 + z_v * (1.0 - gate)))
                        _store_part(grad_z[0] + row * grad_z[1] + t * grad_z[2] + offset, grad, lanes, spare)
                _store(grad_D_sums + offset, grad_D_sum)
                _store(grad_bias_sums + offset, grad_bias_sum)

            for k in range(count):
                B_out = grad_B[0] + row * grad_B[1] + (start + k) * grad_B[2]
                C_out = grad_C[0] + row * grad_C[1] + (start + k) * grad_C[2]
                for i in range(n):
                    quarter = (k * padded + i) * (_BYTES // 4)
                    _store_one(B_out + 4 * i, _sum_quarter(grad_B_sums + quarter))
                    _store_one(C_out + 4 * i, _sum_quarter(grad_C_sums + quarter))

        for block in range(first_block, end_block):
            lanes = min(WIDTH, d - block * WIDTH)
            _store_columns(grad_states + block * columns, lanes, n, grad_initial + 4 * n * (row * d + block * WIDTH))

    for block in range(first_block, end_block):
        lanes = min(WIDTH, d - block * WIDTH)
        _store_columns(grad_A_columns + block * columns, lanes, n, grad_A + 4 * n * WIDTH * block)
        _store_part(grad_D + block * _BYTES, _load(grad_D_sums + block * _BYTES), lanes, spare)
        _store_part(grad_bias + block * _BYTES, _load(grad_bias_sums + block * _BYTES), lanes, spare)
    _restore_denormals(mode)


def conv_forward_scratch(width: int) -> int:
    """Vectors of scratch that `conv_forward` needs per share."""
    return 1 + width + (width - 1 + CHUNK)


@_kernel(*[_operand] * 2, *[types.int64] * 4, types.boolean, _sizes, _share)
def conv_forward(x, y, weight, bias, initial, lengths, silu, sizes, share):  # type: ignore[no-untyped-def]
    """Write the causal convolution of some rows and blocks."""
    length, d, width = sizes
    first_row, end_row, first_block, end_block, spare = share
    taps = spare + _BYTES
    inputs = taps + width * _BYTES  # the width - 1 before a chunk, then the chunk's
    zero = _fill(numba.float32(0))
    mode = _flush_denormals()

    for block in range(first_block, end_block):
        lanes = min(WIDTH, d - block * WIDTH)
        offset = block * _BYTES
        _load_columns(weight + width * offset, lanes, width, width, taps, spare)
        bias_v = zero if bias == 0 else _load_part(bias + offset, lanes, spare)
        for row in range(first_row, end_row):
            end = _row_length(lengths, row, length)
            source = 0 if initial == 0 else initial + (width - 1) * (row * d * 4 + offset)
            _load_columns(source, lanes, width - 1, width - 1, inputs, spare)
            for start in range(0, end, CHUNK):
                count = min(CHUNK, end - start)
                for k in range(count):
                    address = x[0] + row * x[1] + (start + k) * x[2] + offset
                    _store(inputs + (width - 1 + k) * _BYTES, _load_part(address, lanes, spare))
                for k in range(count):
                    total = bias_v
                    for j in range(width):
                        total = total + _load(taps + j * _BYTES) * _load(inputs + (k + j) * _BYTES)
                    if silu:
                        total = total * _sigmoid(total)
                    _store_part(y[0] + row * y[1] + (start + k) * y[2] + offset, total, lanes, spare)
                for j in range(width - 1):
                    _store(inputs + j * _BYTES, _load(inputs + (count + j) * _BYTES))
            for t in range(end, length):
                _store_part(y[0] + row * y[1] + t * y[2] + offset, zero, lanes, spare)

    _restore_denormals(mode)


def conv_backward_scratch(width: int) -> int:
    """Vectors of scratch that `conv_backward` needs per share."""
    return 1 + 4 * width + 2 * (width - 1 + CHUNK)


@_kernel(*[_operand] * 3, *[types.int64] * 7, types.boolean, _sizes, _share)
def conv_backward(  # type: ignore[no-untyped-def]
    x, grad_y, grad_x, weight, bias, initial, grad_weight, grad_bias, grad_initial, lengths, silu, sizes, share
):
    """Write the gradients of some rows and blocks; those of weight and bias only from this share."""
    length, d, width = sizes
    first_row, end_row, first_block, end_block, spare = share
    taps = spare + _BYTES
    grad_taps = taps + width * _BYTES
    state = grad_taps + width * _BYTES
    grad_state = state + width * _BYTES
    inputs = grad_state + width * _BYTES  # the width - 1 before a chunk, then the chunk's
    grads = inputs + (width - 1 + CHUNK) * _BYTES  # d loss / d (before SiLU): the chunk's, then width - 1 after it
    zero = _fill(numba.float32(0))
    mode = _flush_denormals()

    for block in range(first_block, end_block):
        lanes = min(WIDTH, d - block * WIDTH)
        offset = block * _BYTES
        _load_columns(weight + width * offset, lanes, width, width, taps, spare)
        bias_v = zero if bias == 0 else _load_part(bias + offset, lanes, spare)
        grad_bias_sum = zero
        for j in range(width):
            _store(grad_taps + j * _BYTES, zero)
        for row in range(first_row, end_row):
            end = _row_length(lengths, row, length)
            source = 0 if initial == 0 else initial + (width - 1) * (row * d * 4 + offset)
            _load_columns(source, lanes, width - 1, width - 1, state, spare)
            for j in range(width - 1):
                _store(grads + j * _BYTES, zero)
            for t in range(end, length):
                _store_part(grad_x[0] + row * grad_x[1] + t * grad_x[2] + offset, zero, lanes, spare)

            chunks = (end + CHUNK - 1) // CHUNK
            for back in range(chunks):
                start = (chunks - 1 - back) * CHUNK
                count = min(CHUNK, end - start)
                # What was the front of the later chunk is what follows this one.
                for j in range(width - 1):
                    last = width - 2 - j
                    _store(grads + (count + last) * _BYTES, _load(grads + last * _BYTES))
                for k in range(width - 1 + count):
                    t = start + k - (width - 1)
                    if t < 0:
                        _store(inputs + k * _BYTES, _load(state + k * _BYTES))
                    else:
                        address = x[0] + row * x[1] + t * x[2] + offset
                        _store(inputs + k * _BYTES, _load_part(address, lanes, spare))
                for k in range(count):
                    address = grad_y[0] + row * grad_y[1] + (start + k) * grad_y[2] + offset
                    grad = _load_part(address, lanes, spare)
                    if silu:
                        total = bias_v
                        for j in range(width):
                            total = total + _load(taps + j * _BYTES) * _load(inputs + (k + j) * _BYTES)
                        gate = _sigmoid(total)
                        grad = grad * (gate * (1.0 + total * (1.0 - gate)))
                    _store(grads + k * _BYTES, grad)
                    grad_bias_sum = grad_bias_sum + grad
                    for j in range(width):
                        at = grad_taps + j * _BYTES
                        _store(at, _load(at) + grad * _load(inputs + (k + j) * _BYTES))
                for k in range(count):
                    total = zero
                    for j in range(width):
                        total = total + _load(taps + j * _BYTES) * _load(grads + (k + width - 1 - j) * _BYTES)
                    _store_part(grad_x[0] + row * grad_x[1] + (start + k) * grad_x[2] + offset, total, lanes, spare)

            # Input i of the state meets tap j at position i - j.
            for i in range(width - 1):
                total = zero
                for j in range(i + 1):
                    total = total + _load(taps + j * _BYTES) * _load(grads + (i - j) * _BYTES)
                _store(grad_state + i * _BYTES, total)
            _store_columns(grad_state, lanes, width - 1, grad_initial + (width - 1) * (row * d * 4 + offset))
        _store_columns(grad_taps, lanes, width, grad_weight + width * offset)
        _store_part(grad_bias + offset, grad_bias_sum, lanes, spare)

    _restore_denormals(mode)


@_helper
def _load_some(address, is_half):  # type: ignore[no-untyped-def]
    return _load_halves(address) if is_half else _load(address)


@_helper
def _store_some(address, value, is_half):  # type: ignore[no-untyped-def]
    if is_half:
        _store_halves(address, value)
    else:
        _store(address, value)


@_helper
def _load_last(address, lanes, is_half, spare):  # type: ignore[no-untyped-def]
    """Read `lanes` numbers, fewer than a vector has; in the other lanes stands a score that counts for nothing."""
    if is_half:
        # The bits of the lowest number that there is, -3.4e38.
        for lane in range(WIDTH):
            _store_half(spare + 2 * lane, _load_half(address + 2 * lane) if lane < lanes else numba.int16(-129))
        return _load_halves(spare)
    _store(spare, _fill(numba.float32(-1.7e38)))
    for lane in range(lanes):
        _store_one(spare + 4 * lane, _load_one(address + 4 * lane))
    return _load(spare)


@_helper
def _store_last(address, value, lanes, is_half, spare):  # type: ignore[no-untyped-def]
    if is_half:
        _store_halves(spare, value)
        for lane in range(lanes):
            _store_half(address + 2 * lane, _load_half(spare + 2 * lane))
    else:
        _store_part(address, value, lanes, spare)


@_helper
def _highest_score(address, bias, n, is_half, spare):  # type: ignore[no-untyped-def]
    step = 2 * WIDTH if is_half else _BYTES
    highest = _fill(numba.float32(-3.4e38))
    full = n // WIDTH
    if bias == 0:
        for k in range(full):
            highest = _larger_lanes(highest, _load_some(address + k * step, is_half))
    else:
        for k in range(full):
            value = _load_some(address + k * step, is_half) + _load(bias + k * _BYTES)
            highest = _larger_lanes(highest, value)
    lanes = n - full * WIDTH
    if lanes:
        value = _load_last(address + full * step, lanes, is_half, spare)
        if bias != 0:
            value = value + _load_part(bias + full * _BYTES, lanes, spare)
        highest = _larger_lanes(highest, value)
    highest_lane = _lane(highest, 0)
    for lane in range(1, WIDTH):
        value_of_lane = _lane(highest, lane)
        # The other way round it would lose what is not a number.
        highest_lane = highest_lane if highest_lane > value_of_lane else value_of_lane
    return highest_lane


@_kernel(*[types.int64] * 5, *[types.boolean] * 3, types.int64, _share)
def exp_and_sum(scores, stride, bias, shift, sums, is_half, finds_shift, keeps, n, share):  # type: ignore[no-untyped-def]
    """
    Sum `exp(score + bias - shift)` over the n scores of some rows, `stride` bytes apart, and keep it in their place.

    `shift` is read, or with `finds_shift` written: the highest of each row.
    """
    first_row, end_row, _, _, spare = share
    step = 2 * WIDTH if is_half else _BYTES
    full = n // WIDTH
    lanes = n - full * WIDTH
    zero = _fill(numba.float32(0))
    mode = _flush_denormals()

    for row in range(first_row, end_row):
        start = scores + row * stride
        if finds_shift:
            _store_one(shift + 4 * row, _highest_score(start, bias, n, is_half, spare))
        less = _load_one(shift + 4 * row)
        # Two sums, so that an addition need not wait for the one before.
        even, odd = zero, zero
        if bias == 0 and not keeps:
            for k in range(0, full - 1, 2):
                even = even + _exp(_load_some(start + k * step, is_half) - less)
                odd = odd + _exp(_load_some(start + (k + 1) * step, is_half) - less)
        elif bias == 0:
            for k in range(0, full - 1, 2):
                left = _exp(_load_some(start + k * step, is_half) - less)
                right = _exp(_load_some(start + (k + 1) * step, is_half) - less)
                _store_some(start + k * step, left, is_half)
                _store_some(start + (k + 1) * step, right, is_half)
                even, odd = even + left, odd + right
        else:
            for k in range(0, full - 1, 2):
                left = _load_some(start + k * step, is_half) + _load(bias + k * _BYTES)
                right = _load_some(start + (k + 1) * step, is_half) + _load(bias + (k + 1) * _BYTES)
                left, right = _exp(left - less), _exp(right - less)
                _store_some(start + k * step, left, is_half)
                _store_some(start + (k + 1) * step, right, is_half)
                even, odd = even + left, odd + right
        total = even + odd
        if full % 2:
            k = full - 1
            value = _load_some(start + k * step, is_half)
            if bias != 0:
                value = value + _load(bias + k * _BYTES)
            value = _exp(value - less)
            _store_some(start + k * step, value, is_half)
            total = total + value
        if lanes:
            value = _load_last(start + full * step, lanes, is_half, spare)
            if bias != 0:
                value = value + _load_part(bias + full * _BYTES, lanes, spare)
            value = _exp(value - less)
            _store_last(start + full * step, value, lanes, is_half, spare)
            total = total + value
        sum_of_row = numba.float32(0)
        for lane in range(WIDTH):
            sum_of_row += _lane(total, lane)
        _store_one(sums + 4 * row, sum_of_row)

    _restore_denormals(mode)


@_kernel(*[types.int64] * 5, types.boolean, types.float32, types.int64, _share)
def dropout(x, y, key, other_key, dropped, is_half, scale, n, share):  # type: ignore[no-untyped-def]
    """Write `scale * x` or zero for some runs of `DROPOUT_RUN` numbers, out of n."""
    first_run, end_run, _, _, spare = share
    step = 2 * WIDTH if is_half else _BYTES
    end = min(end_run * DROPOUT_RUN, n)
    full = end // WIDTH
    for k in range(first_run * (DROPOUT_RUN // WIDTH), full):
        kept = _keep_or_drop(k * WIDTH, key, other_key, dropped, scale)
        _store_some(y + k * step, _load_some(x + k * step, is_half) * kept, is_half)
    if end == n and end % WIDTH:
        lanes = end - full * WIDTH
        kept = _keep_or_drop(full * WIDTH, key, other_key, dropped, scale)
        value = _load_last(x + full * step, lanes, is_half, spare) * kept
        _store_last(y + full * step, value, lanes, is_half, spare)
