"""Published benchmarks by name, as they are or with the files of all images alike."""

from rmjax.datasets.benchmarks.benchmarks_dataset_builder import (
    Builder,
    Config,
    prepare,
)

__all__ = ["Builder", "Config", "prepare"]
