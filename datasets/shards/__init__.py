"""Images in parquet files, or in the tar shards of a WebDataset, as a data set."""

from rmjax.datasets.shards.shards_dataset_builder import Builder, Config, prepare

__all__ = ["Builder", "Config", "prepare"]
