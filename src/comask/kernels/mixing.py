"""One step of the gradient descent that learns how to mix predictions, as vector instructions.

Weights are int64 and inputs int16, eight of each. The instructions are LLVM's own, for any processor: one without wide vectors
gets the same integers from narrower ones. The sum of weighted inputs stays scalar: it is what the next prediction
waits for, and adding up a vector takes longer than adding eight products.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

LANES = 8
"""Inputs of one mixing."""

_RATE_BITS = 12

_I16, _I32, _I64 = (ir.IntType(width) for width in (16, 32, 64))
_V16, _V32, _V64 = (ir.VectorType(each, LANES) for each in (_I16, _I32, _I64))


def _vector(builder: Any, lanes: Any) -> Any:
    """Return eight scalars as one vector."""
    vector = ir.Constant(_V16, ir.Undefined)
    for place, lane in enumerate(lanes):
        vector = builder.insert_element(vector, lane, _I32(place))
    return vector


def _splat(builder: Any, scalar: Any) -> Any:
    """Return a vector of one int32, eight times."""
    nothing = ir.Constant(_V32, ir.Undefined)
    return builder.shuffle_vector(
        builder.insert_element(nothing, scalar, _I32(0)), nothing, ir.Constant(_V32, [0] * LANES)
    )


def _address(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), _V64.as_pointer())


def _learn(
    _typing: Any,
    weights: Any,
    at: Any,
    error: Any,
    x0: Any,
    x1: Any,
    x2: Any,
    x3: Any,
    x4: Any,
    x5: Any,
    x6: Any,
    x7: Any,
) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _address(context, builder, signature.args[0], args[0], args[1])
        error = _splat(
            builder, builder.trunc(args[2], _I32)
        )  # at most 2**16, and inputs below 2**13: no overflow
        gradient = builder.mul(builder.sext(_vector(builder, args[3:]), _V32), error)
        rounded = builder.add(gradient, ir.Constant(_V32, [1 << (_RATE_BITS - 1)] * LANES))
        step = builder.ashr(rounded, ir.Constant(_V32, [_RATE_BITS] * LANES))
        builder.store(builder.add(builder.load(address, align=8), builder.sext(step, _V64)), address, align=8)
        return context.get_dummy_value()

    return types.void(weights, at, error, x0, x1, x2, x3, x4, x5, x6, x7), generate


learn: Any = intrinsic(_learn)
"""`learn(weights, at, error, x0, ..., x7)`: add `(error * xj + 2048) >> 12` to `weights[at + j]`; |error| is at most 2**16. The caller
sees to it that `at + 8` is in bounds."""
