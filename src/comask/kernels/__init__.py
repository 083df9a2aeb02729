"""Numba kernels: selection, gather and scatter-add, bit packing, entropy coding. Every decode kernel checks its bounds.

A kernel is compiled when it is first called, and cached on disk. Kernels release the interpreter lock instead of using
numba's own thread pool, so that they may be called from any thread and in forked processes; `threads.py` spreads long
vectors over threads.
"""
