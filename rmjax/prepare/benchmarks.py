"""Published benchmarks by name: how their folders say what an image is.

References:
    GenImage: Zhu et al., NeurIPS 2023 Datasets and Benchmarks,
        https://arxiv.org/abs/2306.08571, https://github.com/GenImage-Dataset/GenImage
    ForenSynths: Wang et al., CVPR 2020, https://arxiv.org/abs/1912.11035,
        https://github.com/PeterWang512/CNNDetection
    Synthbuster: Bammey, IEEE Open Journal of Signal Processing 5, 2024,
        https://zenodo.org/records/10066460
    OmniFake: Wu et al., https://arxiv.org/abs/2509.25682,
        https://github.com/teheperinko541/OmniDFA
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from rmjax.data.dataset import REAL
from rmjax.prepare.manifest import (
    REAL_OR_FAKE,
    SPLITS,
    UNSPECIFIED,
    Manifest,
    Row,
    check_generators,
    label_tree,
    list_tree,
)
from rmjax.prepare.splits import assign_splits

# Of the training images of a benchmark that has none for validation.
HELD_OUT = 0.05

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

# What GenImage and OmniFake call `val` is what their papers test on.
_SPLIT_OF = {"train": "train", "val": "test"}


class Place(NamedTuple):
    """What the place of an image in a benchmark's folders says of it.

    Attributes:
        generator: whose folder it lies in; `real` in one of real photographs alone.
        real: whether it is one of them.
        split: one of `SPLITS`.
        semantic: what it shows.
        group: images with equal groups show the same thing; empty for none but itself.
    """

    generator: str
    real: bool
    split: str
    semantic: str = UNSPECIFIED
    group: str = ""


@dataclass(frozen=True)
class Benchmark:
    """How a published benchmark is read.

    Attributes:
        title: what it is, in a line.
        form: what lies in its folder.
        splits: what the splits are, in a line.
        read: function of the folder and a seed.
    """

    title: str
    form: str
    splits: str
    read: Callable[[str | Path, int], Manifest]


def read_folders(
    form: str,
    locate: Callable[[PurePosixPath], Place | None],
    place: str | Path,
    seed: int,
) -> Manifest:
    """Read a benchmark that is a tree of folders.

    Sources that have no training images, where others have some, are for testing alone.
    Where there are training images and none for validation, one in twenty is held out.

    Args:
        form: what lies in the folder, for error messages.
        locate: says what a path is; None for one that does not belong there.
        place: the folder.
        seed: of which images are held out.

    Raises:
        InputError: as of `rmjax.prepare.manifest.read_tree`.
    """
    root = Path(place)
    paths = list_tree(root, form)
    manifest = label_tree(root, paths, form, partial(_read_path, locate))
    check_generators(manifest, {found.generator for p in paths if (found := locate(p))})
    rows = hold_out(manifest.rows, seed)
    trained = {row.source for row in rows if row.split == "train"}
    unknown = [n for n in manifest.source_names if n not in {REAL, *trained}]
    return replace(manifest, rows=rows, unknown=tuple(unknown if trained else ()))


def hold_out(rows: Sequence[Row], seed: int) -> tuple[Row, ...]:
    """Make a share of the training images the split `val`, if there is none.

    Args:
        rows: images with splits.
        seed: another seed takes others.
    """
    splits = {row.split for row in rows}
    if "train" not in splits or "val" in splits:
        return tuple(rows)
    train = [replace(row, split="") for row in rows if row.split == "train"]
    parted = iter(assign_splits(train, seed, (1 - HELD_OUT, HELD_OUT, 0)))
    return tuple(next(parted) if row.split == "train" else row for row in rows)


def _read_path(
    locate: Callable[[PurePosixPath], Place | None], root: Path, path: PurePosixPath
) -> Row | None:
    found = locate(path)
    if found is None:
        return None
    source = REAL if found.real else found.generator
    group = found.group or str(path)
    return Row(str(path), source, found.semantic, group, found.split, str(root))


def _genimage(path: PurePosixPath) -> Place | None:
    match path.parts:
        case [*folders, ("train" | "val") as split, ("ai" | "nature") as kind, _]:
            if 1 <= len(folders) <= 2:
                # The archive's own folder may lie in one of the generator.
                generator = GENIMAGE_ARCHIVES.get(folders[-1], folders[0])
                return Place(generator, kind == "nature", _SPLIT_OF[split])
    return None


def _forensynths(path: PurePosixPath) -> Place | None:
    match path.parts:
        case [("train" | "val") as split, semantic, kind, _] if kind in REAL_OR_FAKE:
            return Place("progan", REAL_OR_FAKE[kind], split, semantic)
        case ["test", generator, *between, kind, _] | [generator, *between, kind, _]:
            if kind in REAL_OR_FAKE and generator not in SPLITS and len(between) < 2:
                semantic = between[0] if between else UNSPECIFIED
                return Place(generator, REAL_OR_FAKE[kind], "test", semantic)
    return None


def _synthbuster(path: PurePosixPath) -> Place | None:
    match path.parts:
        case [folder, _]:
            real = "raise" in folder.lower()
            return Place(REAL if real else folder, real, "test", group=path.stem)
    return None


def _omnifake(path: PurePosixPath) -> Place | None:
    match path.parts:
        case [("train" | "val") as split, source, _]:
            return Place(source, source == REAL, _SPLIT_OF[split])
    return None


def _of_folders(
    title: str,
    form: str,
    splits: str,
    locate: Callable[[PurePosixPath], Place | None],
) -> Benchmark:
    return Benchmark(title, form, splits, partial(read_folders, form, locate))


BENCHMARKS: dict[str, Benchmark] = {
    "genimage": _of_folders(
        "GenImage: 8 generators and ImageNet",
        "<generator>/[<archive>/]<train or val>/<ai or nature>/<image>",
        "its train is train, less 5 % for val; its val, which the paper tests on, is test",
        _genimage,
    ),
    "forensynths": _of_folders(
        "ForenSynths (CNNDetection): ProGAN to train on, 13 test sets",
        "<train or val>/<class>/<0_real or 1_fake>/<image> and "
        "[test/]<generator>/[<class>/]<0_real or 1_fake>/<image>",
        "its own; generators of the test sets other than progan are unknown sources",
        _forensynths,
    ),
    "synthbuster": _of_folders(
        "Synthbuster: 9 generators beside RAISE-1k",
        "<generator or a name with RAISE>/<image>",
        "all is test",
        _synthbuster,
    ),
    "omnifake": _of_folders(
        "OmniFake: 45 generators and photographs",
        "<train or val>/<generator or real>/<image>",
        "its train is train, less 5 % for val; its val, which the paper tests on, is test",
        _omnifake,
    ),
}
