"""What kernels need beyond numba's Python: a machine instruction, and casts that type checkers leave alone."""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

int16: Any = numba.int16
int64: Any = numba.int64
"""Casts inside kernels. Kernels compute in int64: numba turns a mix of uint64 and int64 into floats."""
uint64: Any = numba.uint64
uintp: Any = numba.uintp
"""Cast of an index that is not negative: numba wraps signed indices around, at the price of a comparison and a choice each."""


def _trailing_zeros(_typing: Any, value: Any) -> Any:
    if value != types.int64:
        return None

    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.int64), generate


trailing_zeros: Any = intrinsic(_trailing_zeros)
"""`trailing_zeros(x)`: the number of zero bits below the lowest set bit of an int64; 64 for zero."""
