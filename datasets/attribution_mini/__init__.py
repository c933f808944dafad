"""Simulated sources, drawn on the spot."""

from rmjax.datasets.attribution_mini.attribution_mini_dataset_builder import (
    Builder,
    prepare,
)

__all__ = ["Builder", "prepare"]
