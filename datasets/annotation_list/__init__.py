"""Images listed as `path<TAB>label`, of known and of unknown generators."""

from rmjax.datasets.annotation_list.annotation_list_dataset_builder import (
    Builder,
    Config,
    prepare,
)

__all__ = ["Builder", "Config", "prepare"]
