"""Keep what passes a comparison: sixteen scores at a time, without a branch for each.

The comparison gives a mask, and one vector instruction moves the lanes that pass together (`vpcompressd` where the processor has
it). LLVM makes the same of narrower or scalar instructions on every other processor.
"""

from __future__ import annotations

from typing import Any

from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
"""Scores of one step. What is kept is written as whole vectors: there must be room for this many beyond the last one."""

_F32, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_Floats, _Ints = ir.VectorType(_F32, LANES), ir.VectorType(_I32, LANES)
_Bits = ir.VectorType(ir.IntType(1), LANES)
_IN_REGISTERS = binding.llvm_version_info >= (20,)
"""Compressing in registers and storing whole vectors; older compilers only know the instruction that writes to memory."""


def _splat(builder: Any, scalar: Any, kind: Any) -> Any:
    nothing = ir.Constant(kind, ir.Undefined)
    return builder.shuffle_vector(
        builder.insert_element(nothing, scalar, _I32(0)), nothing, ir.Constant(_Ints, [0] * LANES)
    )


def _address(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [at]), _Ints.as_pointer())


def _store_kept(builder: Any, vector: Any, mask: Any, address: Any) -> None:
    module = builder.module
    if _IN_REGISTERS:
        compress = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            module, ir.FunctionType(_Ints, [_Ints, _Bits, _Ints]), "llvm.experimental.vector.compress.v16i32"
        )
        kept = builder.call(compress, [vector, mask, ir.Constant(_Ints, ir.Undefined)])
        builder.store(kept, address, align=4)
    else:
        store = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            module,
            ir.FunctionType(ir.VoidType(), [_Ints, _I32.as_pointer(), _Bits]),
            "llvm.masked.compressstore.v16i32",
        )
        builder.call(store, [vector, builder.bitcast(address, _I32.as_pointer()), mask])


def _number(builder: Any, mask: Any) -> Any:
    return builder.zext(builder.ctpop(builder.bitcast(mask, ir.IntType(LANES))), _I64)


def _keep_scores(
    _typing: Any, x: Any, at: Any, magnitude: Any, bound: Any, places: Any, scores: Any, n: Any
) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, start, bits, least, places_, scores_, count = args
        kinds = signature.args
        loaded = builder.load(_address(context, builder, kinds[0], source, start), align=4)
        score = builder.and_(loaded, _splat(builder, bits, _Ints))
        mask = builder.fcmp_unordered(">=", builder.bitcast(score, _Floats), _splat(builder, least, _Floats))
        place = builder.add(
            _splat(builder, builder.trunc(start, _I32), _Ints), ir.Constant(_Ints, list(range(LANES)))
        )
        _store_kept(builder, place, mask, _address(context, builder, kinds[4], places_, count))
        _store_kept(builder, score, mask, _address(context, builder, kinds[5], scores_, count))
        return builder.add(count, _number(builder, mask))

    return types.int64(x, at, magnitude, bound, places, scores, n), generate


def _keep_places(_typing: Any, scores: Any, at: Any, bound: Any, places: Any, out: Any, n: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scores_, start, least, places_, out_, count = args
        kinds = signature.args
        score = builder.bitcast(
            builder.load(_address(context, builder, kinds[0], scores_, start), align=4), _Floats
        )
        mask = builder.fcmp_ordered(">=", score, _splat(builder, least, _Floats))
        place = builder.load(_address(context, builder, kinds[3], places_, start), align=4)
        _store_kept(builder, place, mask, _address(context, builder, kinds[4], out_, count))
        return builder.add(count, _number(builder, mask))

    return types.int64(scores, at, bound, places, out, n), generate


def _keep_not_above(_typing: Any, scores: Any, at: Any, bound: Any, out: Any, n: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        scores_, start, most, out_, count = args
        loaded = builder.load(_address(context, builder, signature.args[0], scores_, start), align=4)
        mask = builder.fcmp_ordered("<=", builder.bitcast(loaded, _Floats), _splat(builder, most, _Floats))
        _store_kept(builder, loaded, mask, _address(context, builder, signature.args[3], out_, count))
        return builder.add(count, _number(builder, mask))

    return types.int64(scores, at, bound, out, n), generate


keep_scores: Any = intrinsic(_keep_scores)
"""`keep_scores(x, at, magnitude, bound, places, scores, n)`: of the sixteen floats from `x[at]` on, write those that are not below the
bound, as `scores[n:]`, and where they are, as `places[n:]`; return n plus their number. NaN is not below. `magnitude` (int32) are the
bits of a float that count."""

keep_places: Any = intrinsic(_keep_places)
"""`keep_places(scores, at, bound, places, out, n)`: write those of the sixteen `places[at:]` whose scores are at least the bound, as
`out[n:]`; return n plus their number. NaN is not."""

keep_not_above: Any = intrinsic(_keep_not_above)
"""`keep_not_above(scores, at, bound, out, n)`: write those of the sixteen `scores[at:]` that are at most the bound, as `out[n:]`; return n
plus their number. NaN is not."""
