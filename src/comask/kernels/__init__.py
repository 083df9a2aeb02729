"""Numba kernels: selection, gather and scatter-add, bit packing, entropy coding. Every decode kernel checks its bounds."""
