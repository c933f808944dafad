"""Images in WebDatasets: tar files whose members of one base name are a sample.

References:
    The rules for names are those of https://github.com/webdataset/webdataset: the base
    name ends at the first dot of the file name, what follows is the suffix, and the
    members of a sample stand next to each other.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from rmjax.data.archive import Damaged, read_stream
from rmjax.data.columns import Columns, label_name, list_columns, splits_of_files
from rmjax.data.find import File, Place, describe_place, find_files, reading, state_of
from rmjax.data.image_files import as_text
from rmjax.data.images import SUFFIXES as IMAGE_SUFFIXES
from rmjax.data.parts import Collection, Entry, Unusable
from rmjax.errors import InputError
from rmjax.utils.places import filesystem, is_remote

SUFFIXES = (".tar", ".tar.gz", ".tgz")
_MEMBER = re.compile(r"((?:.*/)?[^/.]+)\.([^/]+)", re.DOTALL)
_TEXTS = ("cls", "txt")  # members that are one label
_LABELS = ("json", *_TEXTS)
_TYPES = {str: "text", int: "a number", bool: "a truth value"}
_FIRST = 100  # samples that are looked through for what labels there are


class _Member(NamedTuple):
    name: str
    data: bytes


# The members of a sample by suffix, in lower case.
_Sample = dict[str, _Member]


@dataclass(frozen=True)
class _Shard:
    """A part: a tar file. `kinds` has the types of the labels by what they say."""

    file: File
    split: str  # that the file's name says
    columns: Columns = field(repr=False)
    kinds: Mapping[str, type] = field(repr=False)

    @property
    def name(self) -> str:
        return self.file.name

    @property
    def size(self) -> int:
        return self.file.size

    def entries(self) -> Iterator[Entry | Unusable]:
        for found in self.images():
            yield found if isinstance(found, Unusable) else found[0]

    def images(self) -> Iterator[tuple[Entry, bytes] | Unusable]:
        for sample in read_samples(self.file, self.columns.image):
            if isinstance(sample, Unusable):
                yield sample
                continue
            images = _images(sample)
            first = (images or [*sample.values()])[0]
            try:
                if len(images) != 1:
                    raise InputError(_describe(images))
                values = _find_labels(self.columns, sample)
            except InputError as error:
                yield Unusable(f"{self.name}: {first.name}", str(error))
            else:
                yield self._entry(first.name, values), first.data

    def _entry(self, path: str, values: Mapping[str, Any]) -> Entry:
        where = f"{self.file.address}, {path}"
        own = {role: label_name(role, value, where) for role, value in values.items()}
        for role, value in values.items():
            usual = self.kinds.get(role, type(value))
            if type(value) is not usual:
                raise InputError(
                    f"{where}: {role} {value!r} is {_TYPES[type(value)]}, where samples "
                    f"before it have {_TYPES[usual]}; give all of one type"
                )
        return self.columns.entry(path, self.split, own)


def open_shards(place: Place, columns: Columns) -> Collection:
    """Find the images of a WebDataset.

    A sample is an image and, where labels are asked for, its JSON file or its member
    `cls` or `txt`. A sample that lacks one of them, or has two images, is unusable, as
    is what a shard has after a place where it is damaged.

    Args:
        place: a tar file, plain or compressed, several, a folder, a pattern such as
            `shard-{000000..000127}.tar`, an address that fsspec knows, or
            `hf:user/dataset`; see `rmjax.data.find.find_files`.
        columns: where the samples say what an image is.

    Returns:
        A part for each shard. An image's path is that of its member.

    Raises:
        InputError: no file; none of the first samples has a label that is asked for,
            or, where labels are, one image; or names of files that say no split among
            others that do.
    """
    files = find_files(place, SUFFIXES)
    kinds = _find_kinds(files, columns)
    names = [file.name for file in files]
    splits = [""] * len(names) if columns.split else splits_of_files(names)
    shards = zip(files, splits, strict=True)
    return Collection(
        describe_place(place),
        tuple(_Shard(file, split, columns, kinds) for file, split in shards),
        stated=columns.real,
        state=state_of(files),
    )


def shard_columns(place: Place) -> list[str]:
    """Return where the first samples of a WebDataset may have labels.

    Raises:
        InputError: no file, or it can't be read.
    """
    return _list_labels(_first_samples(find_files(place, SUFFIXES))[1])


def read_samples(file: File, image: str = "") -> Iterator[_Sample | Unusable]:
    """Yield the samples of a shard: images and members with labels, by suffix.

    What was read before a place where it is damaged is yielded, then an `Unusable`
    for the rest.

    Args:
        file: the shard.
        image: the suffix of the image; empty for all suffixes of images.

    Raises:
        InputError: the shard can't be opened, or has two samples of one name.
    """
    key, sample, seen, damage = "", _Sample(), set(), None
    try:
        for name, data in _read(file, image.lower()):
            base, suffix = _split_name(name)
            if base != key:
                if sample:
                    yield sample
                key, sample = base, {}
                if key in seen:
                    raise InputError(
                        f"{file.address}: {name}: a sample of this name stands before it; "
                        "give each sample another, its members next to each other"
                    )
                seen.add(key)
            if suffix in sample:
                raise InputError(f"{file.address}: {name} is there twice")
            sample[suffix] = _Member(as_text(name), data)
    except Damaged as error:
        reason = str(error).removeprefix(f"{file.address}: ")
        damage = Unusable(file.name, reason, rest=True)
    if sample:
        yield sample
    if damage:
        yield damage


def _read(file: File, image: str) -> Iterator[tuple[str, bytes]]:
    def wanted(name: str) -> bool:
        suffix = _split_name(name)[1]
        if image and suffix not in _LABELS:
            return suffix == image
        return suffix in _LABELS or f".{suffix.split('.')[-1]}" in IMAGE_SUFFIXES

    with reading(file.address):
        fs, path = filesystem(file.address)
        raw = fs.open(path, "rb") if is_remote(file.address) else open(path, "rb")
        with closing(raw):
            yield from read_stream(file.address, raw, wanted)


def _split_name(name: str) -> tuple[str, str]:
    """Return a member's base name and suffix; of a hidden one, neither."""
    found = _MEMBER.fullmatch(name)
    return (found[1], found[2].lower()) if found else ("", "")


def _images(sample: _Sample) -> list[_Member]:
    return [sample[suffix] for suffix in sample if suffix not in _LABELS]


def _describe(images: list[_Member]) -> str:
    if not images:
        return "no image beside it"
    names = " and ".join(member.name for member in images)
    return f"{names} are images of one name: say which suffix is the image"


def _find_labels(columns: Columns, sample: _Sample) -> dict[str, Any]:
    """Return the labels that are asked for, by what they say.

    Raises:
        InputError: the sample lacks one.
    """
    labels = columns.labels()
    document = None
    if any(column not in _TEXTS for column in labels.values()):
        document = _parse(sample)
    return {
        role: _text(sample, column) if column in _TEXTS else _value(document, column)
        for role, column in labels.items()
    }


def _parse(sample: _Sample) -> Any:
    if "json" not in sample:
        raise InputError("no .json beside it")
    try:
        return json.loads(sample["json"].data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{sample['json'].name} is no JSON ({error})") from error


def _value(document: Any, column: str) -> Any:
    value = _find(document, column)
    if value is None or value == "":
        raise InputError(f"no {column} in its JSON")
    return value


def _find(document: Any, column: str) -> Any:
    """Return the value of a key; dots may be of the key, or lead into what it has."""
    if not isinstance(document, dict) or column in document:
        return document[column] if isinstance(document, dict) else None
    for dot in re.finditer(r"\.", column):
        inner = document.get(column[: dot.start()])
        value = _find(inner, column[dot.end() :])
        if value is not None:
            return value
    return None


def _text(sample: _Sample, suffix: str) -> str | int:
    if suffix not in sample:
        raise InputError(f"no .{suffix} beside it")
    try:
        text = sample[suffix].data.decode().strip()
    except UnicodeDecodeError as error:
        raise InputError(f"{sample[suffix].name} is no UTF-8 text") from error
    if not text:
        raise InputError(f"nothing in {sample[suffix].name}")
    return (
        int(text) if suffix == "cls" and re.fullmatch(r"-?[0-9]{1,18}", text) else text
    )


def _find_kinds(files: list[File], columns: Columns) -> dict[str, type]:
    """Return the types of the labels, those of the first sample that has each.

    Raises:
        InputError: none of the first samples has one, or none has one image.
    """
    labels = columns.labels()
    if not labels:
        return {}
    file, samples = _first_samples(files, columns.image)
    kinds: dict[str, type] = {}
    for role, column in labels.items():
        for sample in samples:
            with suppress(InputError):
                text = column in _TEXTS
                value = (
                    _text(sample, column) if text else _value(_parse(sample), column)
                )
                kinds.setdefault(role, type(value))
    for role in labels.keys() - kinds.keys():
        if samples:
            raise InputError(
                f"{file.address}: no {labels[role]!r} for the {role} in its first samples; "
                f"they have {list_columns(_list_labels(samples)) or 'no labels'}"
            )
    if samples and all(len(_images(sample)) != 1 for sample in samples):
        first = next(iter(samples[0].values())).name
        raise InputError(f"{file.address}, {first}: {_describe(_images(samples[0]))}")
    return kinds


def _first_samples(files: list[File], image: str = "") -> tuple[File, list[_Sample]]:
    """Return the first samples of the first shard that has any."""
    for file in files:
        first = islice(read_samples(file, image), _FIRST)
        samples = [sample for sample in first if not isinstance(sample, Unusable)]
        if samples:
            return file, samples
    return files[0], []


def _list_labels(samples: list[_Sample]) -> list[str]:
    found: dict[str, None] = {}
    for sample in samples:
        with suppress(InputError):
            found.update(dict.fromkeys(_flatten(_parse(sample))))
        found.update(dict.fromkeys(suffix for suffix in _TEXTS if suffix in sample))
    return [*found]


def _flatten(document: Any) -> Iterator[str]:
    """Yield the keys of a JSON document that have a value, with dots.

    However deep it is: JSON may be deeper than Python recurses.
    """
    waiting: list[tuple[tuple[str, ...], Any]] = [((), document)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, dict) and value:
            waiting += [((*path, key), value[key]) for key in reversed(value)]
        elif path:
            yield ".".join(path)
