"""Simulated generators: the last layers of any number of them, as pure JAX functions."""

from rmjax.simulate.generators import MULTIPLE, PARTS, Generator, draw_generator
from rmjax.simulate.groups import simulate_groups
from rmjax.simulate.render import simulate, simulate_many

__all__ = [
    "MULTIPLE",
    "PARTS",
    "Generator",
    "draw_generator",
    "simulate",
    "simulate_groups",
    "simulate_many",
]
