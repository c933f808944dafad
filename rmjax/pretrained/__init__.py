"""Weights that others trained: reading their files, naming their parts, converting."""
