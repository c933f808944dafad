"""Published benchmarks by name: how their folders or files say what an image is.

References:
    GenImage: Zhu et al., NeurIPS 2023 Datasets and Benchmarks,
        https://arxiv.org/abs/2306.08571, https://github.com/GenImage-Dataset/GenImage
    ForenSynths: Wang et al., CVPR 2020, https://arxiv.org/abs/1912.11035,
        https://github.com/PeterWang512/CNNDetection
    Synthbuster: Bammey, IEEE Open Journal of Signal Processing 5, 2024,
        https://zenodo.org/records/10066460
    OmniFake: Wu et al., https://arxiv.org/abs/2509.25682,
        https://github.com/teheperinko541/OmniDFA
    Community Forensics: Park and Owens, CVPR 2025, https://arxiv.org/abs/2411.04125,
        https://huggingface.co/datasets/OwensLab/CommunityForensics-Small
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from rmjax.data.columns import Columns
from rmjax.data.dataset import REAL
from rmjax.data.find import Place
from rmjax.data.parquet import open_parquet
from rmjax.data.parts import UNSPECIFIED, Collection, Entry, Part, Unusable
from rmjax.errors import InputError
from rmjax.prepare.manifest import (
    REAL_OR_FAKE,
    SPLITS,
    Manifest,
    Row,
    check_generators,
    label_tree,
    list_tree,
)
from rmjax.utils.places import as_path

# Of the training images of a benchmark that has none for validation.
FRACTIONS = (0.95, 0.05, 0.0)

# What the archives of GenImage unpack to, and its name of the generator.
GENIMAGE_ARCHIVES = {
    "imagenet_ai_0508_adm": "ADM",
    "imagenet_ai_0419_biggan": "BigGAN",
    "imagenet_glide": "glide",
    "imagenet_midjourney": "Midjourney",
    "imagenet_ai_0419_sdv4": "stable_diffusion_v_1_4",
    "imagenet_ai_0424_sdv5": "stable_diffusion_v_1_5",
    "imagenet_ai_0419_vqdm": "VQDM",
    "imagenet_ai_0424_wukong": "wukong",
}

# What GenImage and OmniFake call `val` is what their papers test on. An empty split is
# made by a hash, see `FRACTIONS`.
_SPLIT_OF = {"train": "", "val": "test"}


class Labels(NamedTuple):
    """What the path of an image in a benchmark's folders says of it.

    Attributes:
        generator: whose folder it lies in; `real` in one of real photographs alone.
        real: whether it is one of them.
        split: `train`, `val` or `test`, or empty where it is still to be assigned.
        semantic: what it shows.
        group: images with equal groups show the same thing; empty for none but itself.
    """

    generator: str
    real: bool
    split: str
    semantic: str = UNSPECIFIED
    group: str = ""


ReadPath = Callable[[PurePosixPath], Labels | None]


Benchmark = Callable[[Place], Manifest | Collection]


def read_folders(form: str, read_path: ReadPath, place: Place) -> Manifest:
    """Read a benchmark that is a tree of folders.

    Args:
        form: what lies in the folder, for error messages.
        read_path: says what a path is; None for one that does not belong there.
        place: the folder.

    Raises:
        InputError: as of `rmjax.prepare.manifest.read_tree`.
    """
    if not isinstance(place, str | Path):
        raise InputError(f"{len(place)} places; give one folder with {form}")
    root = as_path(place)
    paths = list_tree(root, form)
    manifest = label_tree(root, paths, form, partial(_make_row, read_path))
    read = (read_path(path) for path in paths)
    check_generators(manifest, {labels.generator for labels in read if labels})
    return replace(manifest, unknown=_unknown(manifest.rows))


def _make_row(read_path: ReadPath, root: Path, path: PurePosixPath) -> Row | None:
    labels = read_path(path)
    if labels is None:
        return None
    source = REAL if labels.real else labels.generator
    group = labels.group or str(path)
    return Row(str(path), source, labels.semantic, group, labels.split, str(root))


def _unknown(entries: Iterable[Entry]) -> tuple[str, ...]:
    """Return the sources without training images, if others have some."""
    split_of = {(entry.source, entry.split) for entry in entries}
    trained = {source for source, split in split_of if split in ("train", "")}
    others = {source for source, _ in split_of} - trained - {REAL}
    return tuple(sorted(others)) if trained else ()


def _genimage(path: PurePosixPath) -> Labels | None:
    match path.parts:
        case [*folders, ("train" | "val") as split, ("ai" | "nature") as kind, _]:
            if 1 <= len(folders) <= 2:
                # The archive's own folder may lie in one of the generator.
                generator = GENIMAGE_ARCHIVES.get(folders[-1], folders[0])
                return Labels(generator, kind == "nature", _SPLIT_OF[split])
    return None


def _forensynths(path: PurePosixPath) -> Labels | None:
    match path.parts:
        case [("train" | "val") as split, semantic, kind, _] if kind in REAL_OR_FAKE:
            return Labels("progan", REAL_OR_FAKE[kind], split, semantic)
        case ["test", generator, *between, kind, _] | [generator, *between, kind, _]:
            if kind in REAL_OR_FAKE and generator not in SPLITS and len(between) < 2:
                semantic = between[0] if between else UNSPECIFIED
                return Labels(generator, REAL_OR_FAKE[kind], "test", semantic)
    return None


def _synthbuster(path: PurePosixPath) -> Labels | None:
    match path.parts:
        case [folder, _]:
            real = "raise" in folder.lower()
            return Labels(REAL if real else folder, real, "test", group=path.stem)
    return None


def _omnifake(path: PurePosixPath) -> Labels | None:
    match path.parts:
        case [("train" | "val") as split, source, _]:
            return Labels(source, source == REAL, _SPLIT_OF[split])
    return None


@dataclass(frozen=True)
class _CommunityForensics:
    """Some images of Community Forensics, read with its `label` as their semantic."""

    part: Part

    @property
    def name(self) -> str:
        return self.part.name

    @property
    def size(self) -> int:
        return self.part.size

    def entries(self) -> Iterator[Entry | Unusable]:
        for entry in self.part.entries():
            yield entry if isinstance(entry, Unusable) else _relabel(entry)

    def images(self) -> Iterator[tuple[Entry, bytes] | Unusable]:
        for image in self.part.images():
            if isinstance(image, Unusable):
                yield image
            else:
                yield _relabel(image[0]), image[1]


def _relabel(entry: Entry) -> Entry:
    if entry.semantic not in ("0", "1"):
        raise InputError(
            f"{entry.path}: label {entry.semantic!r}; 0 for a photograph or 1"
        )
    # A photograph has the name of the generator that it is compared with.
    source = REAL if entry.semantic == "0" else entry.source
    split = "" if entry.split == "train" else entry.split
    return replace(entry, source=source, semantic=UNSPECIFIED, split=split)


def _read_community_forensics(place: Place) -> Collection:
    columns = Columns("image_data", "model_name", semantic="label", split="split")
    found = open_parquet(place, columns)
    parts = tuple(_CommunityForensics(part) for part in found.parts)
    entries = (entry for part in parts for entry in part.entries())
    unknown = _unknown(entry for entry in entries if isinstance(entry, Entry))
    return replace(found, parts=parts, unknown=unknown)


def _of_folders(form: str, read_path: ReadPath) -> Benchmark:
    return partial(read_folders, form, read_path)


# Function of the place; raises an InputError for one of another form.
BENCHMARKS: dict[str, Benchmark] = {
    "genimage": _of_folders(
        "<generator>/[<archive>/]<train or val>/<ai or nature>/<image>",
        _genimage,
    ),
    "forensynths": _of_folders(
        "<train or val>/<class>/<0_real or 1_fake>/<image> and "
        "[test/]<generator>/[<class>/]<0_real or 1_fake>/<image>",
        _forensynths,
    ),
    "synthbuster": _of_folders(
        "<generator or a name with RAISE>/<image>", _synthbuster
    ),
    "omnifake": _of_folders("<train or val>/<generator or real>/<image>", _omnifake),
    "community_forensics": _read_community_forensics,
}
