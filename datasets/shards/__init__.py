"""Images in parquet files, or in the tar shards of a WebDataset, as a data set."""

from rmjax.datasets.shards.shards_dataset_builder import (
    READERS,
    Config,
    Parquet,
    WebDataset,
    prepare,
)

__all__ = ["READERS", "Config", "Parquet", "WebDataset", "prepare"]
