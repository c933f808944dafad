"""The benchmark of RepMix, from its archives."""

from rmjax.datasets.attribution88.attribution88_dataset_builder import (
    CONFIGS,
    Builder,
    Config,
    prepare,
)

__all__ = ["CONFIGS", "Builder", "Config", "prepare"]
