"""Compiled loops (numba): numpy arrays in and out."""
