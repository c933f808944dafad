"""TFDS builder of annotation lists as OSMA has them, and `prepare`, which calls it."""

import dataclasses
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

import tensorflow_datasets as tfds

from rmjax.data.listing import open_text
from rmjax.data.parts import UNSPECIFIED
from rmjax.errors import InputError
from rmjax.prepare import builder
from rmjax.prepare.manifest import (
    SPLITS,
    InsideRoot,
    Manifest,
    Row,
    check_once,
)
from rmjax.utils.choose import check_choice
from rmjax.utils.places import absolute, as_path

UNKNOWN = "unknown_"  # begins the names of splits with unknown sources

# Path, label and line of an image in a list.
Entry = tuple[PurePosixPath, int, int]


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """Which lists to build a data set from.

    Attributes:
        lists: files by split, `train`, `val` or `test`, of the known sources.
        unknown: files by name, such as `arch`, of sources that are never trained on;
            each has labels of its own and becomes the split `unknown_<name>`.
        root: folder that paths are relative to; None looks for the first image from
            the list's folder upward.
        names: of the known sources by label; none reads them from the paths.
    """

    lists: Mapping[str, str | Path] = dataclasses.field(default_factory=dict)
    unknown: Mapping[str, str | Path] = dataclasses.field(default_factory=dict)
    root: str | Path | None = None
    names: Sequence[str] = ()


class Builder(builder.ListedBuilder):
    """Images of known and unknown sources, their bytes as they were."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}
    builder_config: Config

    @cached_property
    def manifest(self) -> Manifest:
        """Return the images with their splits."""
        config = self.builder_config
        if config is None or not config.lists:
            raise InputError("annotation_list: give at least one list")
        return read_lists(config.lists, config.unknown, config.root, config.names)


def read_lists(
    lists: Mapping[str, str | Path],
    unknown: Mapping[str, str | Path],
    root: str | Path | None = None,
    names: Sequence[str] = (),
) -> Manifest:
    """Read lists of `path<TAB or space>label` lines.

    A label's name is the deepest folder that holds all its images, relative to the
    deepest that holds all images of the lists: the real ones of OSMA become `real`,
    others such as `fake/styleGAN/bus`. Label 0 of the known sources is real.

    Args:
        lists, unknown, root, names: as in `Config`.

    Raises:
        InputError: a list that cannot be read or has other lines, naming file and
            line; a path outside the root or given twice; two labels with one name.
    """
    for split in lists:
        check_choice("split", split, SPLITS)
    files = {**lists, **{UNKNOWN + name: file for name, file in unknown.items()}}
    entries = {split: list(_read_list(as_path(file))) for split, file in files.items()}
    first = next(iter(files))
    root = (
        as_path(root)
        if root
        else _find_root(as_path(files[first]), entries[first][0][0])
    )
    folders = [path.parent for listed in entries.values() for path, _, _ in listed]
    if len({folder.is_absolute() for folder in folders}) > 1:
        raise InputError(f"{files[first]}: absolute and relative paths are mixed")
    common = PurePosixPath(os.path.commonpath(folders))
    known = [entry for split in lists for entry in entries[split]]
    known_names = dict(enumerate(names)) if names else _names_of(known, common)
    _check_names(known_names, known, str(files[first]))
    if not any(label == 0 for _, label, _ in known):
        raise InputError(f"{files[first]}: no image has label 0, that of the real ones")
    all_names = [known_names[label] for label in sorted(known_names)]
    inside, rows = InsideRoot(root), []
    for split, listed in entries.items():
        of_label = known_names if split in lists else _names_of(listed, common)
        if split not in lists:
            _check_names(of_label, listed, str(files[split]))
            _check_unknown(of_label, known_names, str(files[split]))
        all_names += [n for n in of_label.values() if n not in all_names]
        for path, label, line in listed:
            where = f"{files[split]}, line {line}"
            text = str(inside.relative(str(path), where))
            source = (of_label[label], UNSPECIFIED)
            rows.append(Row(text, *source, text, split, str(files[split]), line))
    check_once(rows)
    strangers = tuple(name for name in all_names if name not in known_names.values())
    return Manifest(root, tuple(rows), tuple(all_names), (UNSPECIFIED,), strangers)


def _read_list(file: Path) -> Iterator[Entry]:
    """Yield what the lines of a list say; its paths may contain spaces."""
    with open_text(str(file), file) as stream:
        lines = stream.read().split("\n")
    if not any(line.strip() for line in lines):
        raise InputError(f"{file}: an empty list")
    for number, line in enumerate(lines, start=1):
        match = re.fullmatch(r"\s*(\S.*?)\s+(\d+)\s*", line)
        if match:
            yield PurePosixPath(match[1]), int(match[2]), number
        elif line.strip():
            raise InputError(
                f"{file}, line {number}: {line.strip()[:60]!r} is not a path, a tab or a space, "
                "and a label from 0"
            )


def _find_root(file: Path, path: PurePosixPath) -> Path:
    """Return the folder, from that of a list upward, from which a path leads to a file."""
    for folder in absolute(file).parents:
        if (folder / path).is_file():
            return folder
    raise InputError(
        f"{file}: {path} is in no folder from {absolute(file).parent} upward; give the root that "
        "paths start from"
    )


def _names_of(entries: Sequence[Entry], common: PurePosixPath) -> dict[int, str]:
    """Return the names of labels, from the folders of their images."""
    folders: dict[int, PurePosixPath] = {}
    for path, label, _ in entries:
        folder = folders.setdefault(label, path.parent)
        if folder not in (path.parent, *path.parent.parents):
            folders[label] = PurePosixPath(os.path.commonpath([folder, path.parent]))
    return {label: str(folder.relative_to(common)) for label, folder in folders.items()}


def _check_names(names: Mapping[int, str], known: Sequence[Entry], file: str) -> None:
    labels = {label for _, label, _ in known}
    absent = sorted(labels - set(names))
    if absent:
        raise InputError(
            f"{file}: label {absent[0]} has no name; give one for each label"
        )
    if "." in names.values():
        raise InputError(
            f"{file}: images of a label lie in the folder of all others, which does not name "
            "it; give a name for each label"
        )
    if len(set(names.values())) < len(names):
        raise InputError(
            f"{file}: two labels are called {_twice(names)!r}, the folder that holds the images of "
            "both; give a name for each label"
        )


def _check_unknown(
    names: Mapping[int, str], known: Mapping[int, str], file: str
) -> None:
    both = sorted(set(names.values()) & set(known.values()))
    if both:
        raise InputError(f"{file}: {both[0]!r} is a known source as well")


def _twice(names: Mapping[int, str]) -> str:
    given = list(names.values())
    return next(name for name in given if given.count(name) > 1)


def prepare(
    name: str,
    data_dir: str | Path,
    *,
    lists: Mapping[str, str | Path],
    unknown: Mapping[str, str | Path] | None = None,
    root: str | Path | None = None,
    names: Sequence[str] = (),
    processes: int | None = None,
    **options,
) -> Path:
    """Make a data set `annotation_list/<name>`.

    Args:
        name: letters, digits, `_`, `-` and `.`; what the data set is called.
        data_dir: the folder that holds all prepared data sets.
        lists, unknown, root, names: as in `Config`.
        processes: that read images; None uses every core for more than a few.
        **options: as for `rmjax.prepare.builder.prepare`, which says the rest.
    """
    config = Config(
        name=name, lists=lists, unknown=unknown or {}, root=root, names=tuple(names)
    )
    made = Builder(config=config, data_dir=data_dir, processes=processes)
    return builder.prepare(made, **options)
