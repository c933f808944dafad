"""A user's own images as a data set."""

from rmjax.datasets.image_folder.image_folder_dataset_builder import (
    Builder,
    Config,
    prepare,
)

__all__ = ["Builder", "Config", "prepare"]
