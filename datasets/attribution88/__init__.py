"""The benchmark of RepMix, from its archives."""

from rmjax.datasets.attribution88.attribution88_dataset_builder import (
    CONFIGS,
    IMAGES_PER_CELL,
    Builder,
    Config,
    prepare,
)

__all__ = ["CONFIGS", "IMAGES_PER_CELL", "Builder", "Config", "prepare"]
