"""ImageAttributionBench, from its folder tree."""

from rmjax.datasets.image_attribution_bench.image_attribution_bench_dataset_builder import (
    Builder,
    Config,
    prepare,
)

__all__ = ["Builder", "Config", "prepare"]
