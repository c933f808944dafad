"""What a file tells beside its pixels: container, size, compression, a thumbnail.

References:
    The quality of a JPEG file is read from its luma quantisation table: the
    Independent JPEG Group's library, and with it nearly every program, scales one table
    (ITU-T T.81, annex K) by a quality of 1..100.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from tqdm import tqdm

from rmjax.corruptions.jpeg import LUMINANCE
from rmjax.data.collected import Collected
from rmjax.data.dataset import Dataset, open_dataset
from rmjax.data.images import decode_rgb, open_image
from rmjax.data.labels import hash_name
from rmjax.data.parts import Part, Unusable
from rmjax.data.shards import Records
from rmjax.errors import InputError
from rmjax.utils.choose import check_choice
from rmjax.utils.processes import BLOCK, FEW, cores, ordered_map

THUMBNAIL = 8  # side in pixels

_TEXT: Any = np.dtypes.StringDType()
_TYPES: dict[str, Any] = {
    **{"source": np.int32, "semantic": np.int32, "split": np.int8, "path": _TEXT},
    **{"group": np.int64, "format": _TEXT, "mode": _TEXT, "width": np.int32},
    **{"height": np.int32, "bytes": np.int64, "quality": np.float32, "standard": bool},
    **{"subsampling": _TEXT, "reason": _TEXT},
}

_SAMPLINGS: dict[tuple, str] = {
    ((1, 1), (1, 1), (1, 1)): "4:4:4",
    ((2, 1), (1, 1), (1, 1)): "4:2:2",
    ((2, 2), (1, 1), (1, 1)): "4:2:0",
    ((1, 2), (1, 1), (1, 1)): "4:4:0",
    ((4, 1), (1, 1), (1, 1)): "4:1:1",
}


@dataclass(frozen=True)
class ImageFacts:
    """What is known of one encoded image.

    Attributes:
        format: Pillow's name of the container, such as `PNG`; empty where the header
            can't be read, as `mode` is then, and the sizes 0.
        mode: Pillow's name of the pixel layout, such as `RGB` or `P`.
        width: pixels as stored, before an EXIF orientation is applied.
        height: likewise.
        bytes: length of the file.
        quality: of a JPEG, 1..100: the one whose luma table is nearest; else nan.
        standard: whether that table is the file's own, entry by entry.
        subsampling: of a JPEG's chroma, such as `4:2:0`, `grey` for one component,
            the sampling factors where there is no such name; else empty.
        digest: the first 16 bytes of the SHA-256 of the file, uint64 `[2]`.
        thumbnail: uint8 `[8, 8, 3]`, box-averaged RGB; zeros if unreadable.
        reason: why the image does not decode; empty if it does.
    """

    format: str
    mode: str
    width: int
    height: int
    bytes: int
    quality: float
    standard: bool
    subsampling: str
    digest: np.ndarray
    thumbnail: np.ndarray
    reason: str


@dataclass(frozen=True)
class Facts:
    """The facts of many images, a column each, in the order of the records.

    Attributes:
        split_names: names by split index.
        source: int32 `[n]`, the data set's index.
        semantic: int32 `[n]`, likewise.
        split: int8 `[n]`, the index into `split_names`.
        path: texts `[n]`.
        group: int64 `[n]`, a hash of the group's name: equal where the groups are.
        format, mode, subsampling, reason: texts `[n]`, as in `ImageFacts`, as are
        width, height, bytes: integers `[n]`.
        quality: float32 `[n]`.
        standard: bool `[n]`.
        digest: uint64 `[n, 2]`.
        thumbnail: uint8 `[n, 8, 8, 3]`.
    """

    split_names: tuple[str, ...]
    source: np.ndarray
    semantic: np.ndarray
    split: np.ndarray
    path: np.ndarray
    group: np.ndarray
    format: np.ndarray
    mode: np.ndarray
    width: np.ndarray
    height: np.ndarray
    bytes: np.ndarray
    quality: np.ndarray
    standard: np.ndarray
    subsampling: np.ndarray
    digest: np.ndarray
    thumbnail: np.ndarray
    reason: np.ndarray

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.source)

    def take(self, rows: np.ndarray) -> "Facts":
        """Return the facts of some images, given by a mask or by their numbers."""
        columns = {f.name: getattr(self, f.name) for f in fields(self)[1:]}
        return replace(self, **{name: c[rows] for name, c in columns.items()})


def image_facts(data: bytes) -> ImageFacts:
    """Gather what an encoded image tells beside its pixels.

    Args:
        data: the file's bytes; of anything, a file that is no image too.
    """
    try:
        pixels, reason = decode_rgb(data), ""
        small = Image.fromarray(pixels).resize((THUMBNAIL,) * 2, Image.Resampling.BOX)
        thumbnail = np.asarray(small)
    except InputError as error:
        reason = str(error).removeprefix("image: ")
        thumbnail = np.zeros((THUMBNAIL, THUMBNAIL, 3), np.uint8)
    header: Image.Image | None = None
    with suppress(InputError):
        header = open_image(data)
    jpeg = header if isinstance(header, JpegImageFile) else None
    quality, standard = header_quality(header)
    return ImageFacts(
        format=(header.format or "") if header else "",
        mode=header.mode if header else "",
        width=header.width if header else 0,
        height=header.height if header else 0,
        bytes=len(data),
        quality=quality,
        standard=standard,
        subsampling=_subsampling(jpeg) if jpeg else "",
        digest=np.frombuffer(hashlib.sha256(data).digest()[:16], np.uint64),
        thumbnail=thumbnail,
        reason=reason,
    )


def header_quality(header: Image.Image | None) -> tuple[float, bool]:
    """Return what `jpeg_quality` says of an opened file, nan of other formats."""
    table = _luma_table(header) if isinstance(header, JpegImageFile) else None
    return jpeg_quality(table)


def jpeg_quality(table: Sequence[int] | None) -> tuple[float, bool]:
    """Estimate the quality that a luma quantisation table stands for.

    Args:
        table: its 64 steps row by row; None where a file has none.

    Returns:
        The quality 1..100 whose table differs least in the sum, nan for None, and
        whether it does not differ at all.
    """
    if table is None or len(table) != 64:
        return np.nan, False
    distances = np.abs(_standard_tables() - np.asarray(table)).sum(1)
    nearest = int(distances.argmin())
    return float(nearest + 1), bool(distances[nearest] == 0)


def collect_facts(
    dataset: Dataset,
    splits: Sequence[str] | None = None,
    processes: int | None = None,
    records: Mapping[str, np.ndarray] | None = None,
    show_progress: bool = True,
) -> Facts:
    """Gather the facts of all images of some splits, in the order of the records.

    A million images with paths of 60 characters take 400 MB.

    Args:
        dataset: an open data set, or what `rmjax.data.collected.collect_labels` made of files.
        splits: which; None takes all.
        processes: how many read and decode; None is one a core, or, for fewer than
            2,000 images, this one alone.
        records: by split the numbers of the records to take; None takes all.
        show_progress: whether to draw a progress bar.

    Raises:
        InputError: the data set has no such split.
    """
    splits = tuple(dataset.split_sizes if splits is None else splits)
    for split in splits:
        check_choice("split", split, dataset.split_sizes)
    if records is None:
        records = {split: np.arange(dataset.split_sizes[split]) for split in splits}
    total = sum(len(records[split]) for split in splits)
    if processes is None:
        processes = 1 if total < FEW else cores()
    work: tuple[Iterator, Callable[[Any], dict]]
    if isinstance(dataset, Collected):
        work = _by_part(dataset, splits, records), _read_part
    else:
        work = _by_block(splits, records), _Reader(dataset)
    columns, (tasks, read) = _empty_columns(total), work
    bar = tqdm(total=total, desc="reading images", delay=1, disable=not show_progress)
    with bar, ordered_map(read, processes) as mapped:
        for task, block in mapped(tasks):
            for name, values in block.items():
                columns[name][task.places] = values
            bar.update(len(task.numbers))
    return Facts(split_names=splits, **columns)


def _empty_columns(total: int) -> dict[str, np.ndarray]:
    columns = {name: np.zeros(total, kind) for name, kind in _TYPES.items()}
    columns["digest"] = np.zeros((total, 2), np.uint64)
    columns["thumbnail"] = np.zeros((total, THUMBNAIL, THUMBNAIL, 3), np.uint8)
    return columns


class _Block(NamedTuple):
    """Records of a split, and their places among all."""

    split: str
    of_split: int
    numbers: np.ndarray
    places: np.ndarray


class _Images(NamedTuple):
    """Images of a part, by number from the least on; their labels and places among all."""

    part: Part
    numbers: np.ndarray
    labels: dict[str, np.ndarray]
    places: np.ndarray


def _by_block(
    splits: Sequence[str], records: Mapping[str, np.ndarray]
) -> Iterator[_Block]:
    done = 0
    for number, split in enumerate(splits):
        for start in range(0, len(records[split]), BLOCK):
            rows = records[split][start : start + BLOCK]
            yield _Block(split, number, rows, np.arange(done, done + len(rows)))
            done += len(rows)


def _by_part(
    dataset: Collected, splits: Sequence[str], records: Mapping[str, np.ndarray]
) -> Iterator[_Images]:
    names = ("numbers", "source", "semantic", "group")
    columns: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for split in splits:
        own = {"numbers": dataset.numbers[split], **dataset.labels(split)}
        for name, values in columns.items():
            values.append(own[name][records[split]])
    labels = {name: np.concatenate(values) for name, values in columns.items()}
    of_part, numbers = labels.pop("numbers").T
    sizes = [len(records[split]) for split in splits]
    labels["split"] = np.repeat(np.arange(len(splits)), sizes)
    for part in np.unique(of_part):
        places = np.flatnonzero(of_part == part)
        places = places[np.argsort(numbers[places])]
        own = {name: values[places] for name, values in labels.items()}
        yield _Images(dataset.parts[part], numbers[places], own, places)


class _Reader:
    """Reads the facts of blocks of records; in another process, opens the set anew."""

    def __init__(self, dataset: Dataset):
        self._dataset = dataset
        self._records: dict[str, Records] = {}

    def __reduce__(self) -> tuple:
        return _reopen, (self._dataset.directory,)

    def __call__(self, block: _Block) -> dict:
        if block.split not in self._records:
            self._records[block.split] = self._dataset.records(block.split)
        records = self._records[block.split]
        rows = records.__getitems__([int(number) for number in block.numbers])
        columns = _to_columns([image_facts(row["image"]) for row in rows])
        for name in ("source", "semantic"):
            columns[name] = [row[name] for row in rows]
        columns["path"] = [row["path"].decode(errors="replace") for row in rows]
        columns["group"] = [hash_name(row["group"]) for row in rows]
        columns["split"] = [block.of_split] * len(rows)
        return columns


def _reopen(directory: Path) -> _Reader:
    return _Reader(open_dataset(directory))


def _read_part(images: _Images) -> dict:
    """Return the columns of some images of a part."""
    wanted, facts, paths = set(images.numbers.tolist()), [], []
    for number, found in enumerate(images.part.images()):
        if number not in wanted:
            continue
        if isinstance(found, Unusable):
            facts.append(replace(image_facts(b""), reason=found.reason))
            paths.append(found.path)
        else:
            facts.append(image_facts(found[1]))
            paths.append(found[0].path)
        if len(facts) == len(wanted):
            break
    if len(facts) < len(wanted):
        raise InputError(f"{images.part.name}: changed while it was read; begin again")
    return _to_columns(facts) | images.labels | {"path": paths}


def _to_columns(facts: Sequence[ImageFacts]) -> dict[str, Any]:
    names = (field.name for field in fields(ImageFacts))
    return {name: [getattr(fact, name) for fact in facts] for name in names}


@lru_cache
def _standard_tables() -> np.ndarray:
    """Return the luma tables of qualities 1..100: `[100, 64]`."""
    quality = np.arange(1, 101)[:, None]
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return np.clip((LUMINANCE.reshape(1, -1) * scale + 50) // 100, 1, 255)


def _luma_table(image: JpegImageFile) -> Sequence[int] | None:
    """Return the table of the first component; Pillow has undone its zigzag."""
    return image.quantization.get(image.layer[0][3]) if image.layer else None


def _subsampling(image: JpegImageFile) -> str:
    factors = tuple((across, down) for _, across, down, _ in image.layer)
    if len(factors) == 1:
        return "grey"
    named = _SAMPLINGS.get(factors)
    return named or ",".join(f"{across}x{down}" for across, down in factors)
