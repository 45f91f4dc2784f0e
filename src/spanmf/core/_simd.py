"""Three vector primitives for numba on short rows of a table, named by the entries of a sparse row.

Written as plain loops, LLVM compiles both to scalar code (the target might alias the source), which is six times
slower; here one row of ``width`` floats is one vector value. ``lanes`` is a tuple of ``width / LANE`` float32: its length is
known at compile time, its values are not used (numba takes at most 100 of them into a parallel loop).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

FAST = ("reassoc", "nsz", "arcp", "contract")  # fast-math flags that keep NaN and infinity

LANE = 16  # rows are padded to multiples of this many float32


def make_lanes(width: int) -> tuple[np.float32, ...]:
    """Give the compile-time marker of a row width: one value for every LANE columns."""
    return (np.float32(0),) * (width // LANE)


def padded(k: int) -> int:
    """Round k up to a whole number of vector lanes."""
    return -(-k // LANE) * LANE


def _row_loop(context: Any, builder: Any, signature: Any, args: Any, body: Any) -> None:
    """Run ``body(pointer to data[j], pointer to table[indices[j]])`` for j in start … stop."""
    arrays = [context.make_array(t)(context, builder, v) for t, v in zip(signature.args[:4], args[:4], strict=True)]
    _, data, indices, table = arrays
    start, stop, width = args[4], args[5], len(signature.args[6]) * LANE
    vector = ir.VectorType(ir.FloatType(), width)
    i64 = ir.IntType(64)
    with cgutils.for_range_slice(builder, start, stop, ir.Constant(start.type, 1)) as (j, _):
        column = builder.sext(builder.load(builder.gep(indices.data, [j])), i64)
        row = builder.gep(table.data, [builder.mul(column, ir.Constant(i64, width))])
        body(builder.gep(data.data, [j]), builder.bitcast(row, vector.as_pointer()))


def _splat(builder: Any, pointer: Any, vector: Any) -> Any:
    """Load one float into all lanes."""
    undef, i32 = ir.Constant(vector, ir.Undefined), ir.IntType(32)
    value = builder.insert_element(undef, builder.load(pointer), ir.Constant(i32, 0))
    return builder.shuffle_vector(value, undef, ir.Constant(ir.VectorType(i32, vector.count), [0] * vector.count))


def _signature(row: Any, data: Any, indices: Any, table: Any, start: Any, stop: Any, lanes: Any) -> Any:
    return types.void(row, data, indices, table, types.int64, types.int64, lanes)


@intrinsic
def gather(typingctx: Any, row: Any, data: Any, indices: Any, table: Any, start: Any, stop: Any, lanes: Any) -> Any:
    """``row[:] = Σ_j data[j] · table[indices[j], :]`` for j in start … stop (all float32, int32 indices)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = ir.VectorType(ir.FloatType(), len(signature.args[6]) * LANE)
        total = cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * vector.count))

        def add(x: Any, pointer: Any) -> None:
            term = builder.fmul(_splat(builder, x, vector), builder.load(pointer, align=4), flags=FAST)
            builder.store(builder.fadd(builder.load(total), term, flags=FAST), total)

        _row_loop(context, builder, signature, args, add)
        target = context.make_array(signature.args[0])(context, builder, args[0]).data
        builder.store(builder.load(total), builder.bitcast(target, vector.as_pointer()), align=4)
        return context.get_dummy_value()

    return _signature(row, data, indices, table, start, stop, lanes), codegen


@intrinsic
def scatter(typingctx: Any, row: Any, data: Any, indices: Any, table: Any, start: Any, stop: Any, lanes: Any) -> Any:
    """``table[indices[j], :] += data[j] · row[:]`` for j in start … stop (all float32, int32 indices)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = ir.VectorType(ir.FloatType(), len(signature.args[6]) * LANE)
        source = context.make_array(signature.args[0])(context, builder, args[0]).data
        values = builder.load(builder.bitcast(source, vector.as_pointer()), align=4)

        def add(x: Any, pointer: Any) -> None:
            term = builder.fmul(_splat(builder, x, vector), values, flags=FAST)
            builder.store(builder.fadd(builder.load(pointer, align=4), term, flags=FAST), pointer, align=4)

        _row_loop(context, builder, signature, args, add)
        return context.get_dummy_value()

    return _signature(row, data, indices, table, start, stop, lanes), codegen


@intrinsic
def dots(typingctx: Any, row: Any, data: Any, indices: Any, table: Any, start: Any, stop: Any, lanes: Any) -> Any:
    """``data[j] = row · table[indices[j], :]`` for j in start … stop (all float32, int32 indices)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        f32 = ir.FloatType()
        vector = ir.VectorType(f32, len(signature.args[6]) * LANE)
        source = context.make_array(signature.args[0])(context, builder, args[0]).data
        values = builder.load(builder.bitcast(source, vector.as_pointer()), align=4)
        name = f"llvm.vector.reduce.fadd.v{vector.count}f32"
        reduce = cgutils.get_or_insert_function(builder.module, ir.FunctionType(f32, [f32, vector]), name)

        def dot(x: Any, pointer: Any) -> None:
            terms = builder.fmul(values, builder.load(pointer, align=4), flags=FAST)
            builder.store(builder.call(reduce, [ir.Constant(f32, -0.0), terms], fastmath=FAST), x)

        _row_loop(context, builder, signature, args, dot)
        return context.get_dummy_value()

    return _signature(row, data, indices, table, start, stop, lanes), codegen
