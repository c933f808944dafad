"""Collections of images in parts that are read independently of each other.

A part is a file, or some of a file: a shard of a WebDataset, some row groups of a parquet
file, some images of a folder. Reading one takes memory that does not grow with it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

UNSPECIFIED = "unspecified"  # the semantic, where nothing says what the images show


@dataclass(frozen=True, slots=True)
class Entry:
    """One image.

    Attributes:
        path: what to call it, unlike that of any other image of the collection.
        source: name of what made it; empty where it is not asked for.
        semantic: name of what it shows.
        group: images with equal groups show the same thing and stay in one split.
        split: `train`, `val` or `test`, or empty where it is still to be assigned.
        stated: what the source is called where the image lies; empty for its name.
    """

    path: str
    source: str
    semantic: str
    group: str
    split: str
    stated: str = field(default="", kw_only=True)


class Unusable(NamedTuple):
    """An image that cannot be used.

    Attributes:
        path: what to call it.
        reason: why.
        rest: whether it stands for all that its part would have from here on.
    """

    path: str
    reason: str
    rest: bool = False


class Part(Protocol):
    """Some images, for one process to read; can be pickled."""

    @property
    def name(self) -> str:
        """Return what error messages call it."""

    @property
    def size(self) -> int:
        """Return about how many bytes it has."""

    def entries(self) -> Iterator[Entry | Unusable]:
        """Yield what is known of each image without reading it.

        Raises:
            InputError: the part cannot be read, or its labels are wrong; naming file and
                row.
        """

    def images(self) -> Iterator[tuple[Entry, bytes] | Unusable]:
        """Yield each image with its encoded file, in the order of `entries`.

        An image that `entries` took for usable may turn out not to be.

        Raises:
            InputError: as for `entries`.
        """


@dataclass(frozen=True)
class Collection:
    """Images in parts, and the names of their classes as far as these have an order.

    Attributes:
        place: what error messages call it all.
        parts: none of them empty.
        sources: names in the order of their labels. Others that there are follow in
            alphabetical order; those of which there is no image are passed over.
        semantics: likewise, but for the passing over.
        unknown: sources that are for testing alone, as unknown ones.
        real: the source of the real photographs, which becomes source 0.
        stated: names that some image of `real` is to have, or had, where it lies.
        state: changes with what the images lie in; empty where others know that.
    """

    place: str
    parts: tuple[Part, ...]
    sources: tuple[str, ...] = ()
    semantics: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    real: str = "real"
    stated: tuple[str, ...] = ()
    state: str = ""
