"""The commands that show what data is like: audit, preview."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rmjax.cli.options import ColumnNames, DataDir, Names, NewFile, NewFolder, name_of
from rmjax.cli.parser import Group
from rmjax.errors import InputError

if TYPE_CHECKING:
    from rmjax.data.columns import Columns
    from rmjax.data.dataset import Dataset


def audit_dataset(
    dataset: list[str],
    *,
    data_dir: DataDir = "data",
    out: NewFolder | None = None,
    splits: Names = ("all",),
    sources: Names = (),
    semantics: Names = (),
    folds: int = 5,
    seed: int = 0,
    max_images: int = 20_000,
    group: str = "",
    columns: ColumnNames,
) -> None:
    """How well file, size or scene alone tell the source.

    Args:
        dataset: a prepared one, such as image_folder/mine; or parquet files or WebDataset
            shards (a folder, a pattern, an address), or hf:USER/DATASET, with --source
        out: folder of the figures (default: audit/DATASET)
        splits: A,B or all
        sources: A,B (default: all with images)
        semantics: A,B (default: all)
        folds: of the cross-validation
        seed: of the choice of images, the folds and the classifiers
        max_images: of more, so many, all sources alike
        group: of files, the column of what images of one scene have in common; they
            stay in one fold
    """
    from rmjax.audit.audit import audit
    from rmjax.audit.report import format_audit, write_audit
    from rmjax.data.dataset import find_dataset, open_dataset
    from rmjax.utils.files import check_writable

    name, *more = dataset
    opened = _open_files(dataset, columns.read(group))
    if opened is not None:
        name = name_of(name)
    elif more:
        raise InputError(f"{more[0]}: give one prepared data set, or files alone")
    else:
        opened = open_dataset(find_dataset(data_dir, name))
    folder = Path(out or Path("audit") / name)
    check_writable(folder)
    results = audit(
        opened,
        splits=None if splits == ("all",) else splits,
        sources=sources or None,
        semantics=semantics or None,
        folds=folds,
        seed=seed,
        max_images=max_images,
    )
    print(format_audit(results))
    for kind, path in write_audit(results, folder).items():
        print(f"{kind + ':':<11} {path}")


def _open_files(places: list[str], columns: "Columns") -> "Dataset | None":
    """Read the labels of files that hold many images; None where they are none."""
    from rmjax.data.collected import collect_labels
    from rmjax.data.dataset import REAL
    from rmjax.data.direct import open_labelled

    collection = open_labelled(places, columns)
    opened = collect_labels(collection) if collection else None
    if opened and columns.real and REAL not in opened.source_names:
        raise InputError(
            f"--real {','.join(columns.real)}: no such source; there are "
            f"{', '.join(opened.source_names)}"
        )
    return opened


def draw_corruptions(
    image: Annotated[str, "its middle is shown"],
    *,
    out: Annotated[NewFile, "the PNG to write"] = "corruptions.png",
    names: Annotated[Names, "some kinds, A,B (default: all 19)"] = (),
    size: Annotated[int, "side in pixels to corrupt it at"] = 224,
    seed: Annotated[int, "of the draws"] = 0,
) -> None:
    """An image under each ImageNet-C corruption and severity."""
    from rmjax.corruptions import NAMES
    from rmjax.report.preview import preview_corruptions

    preview_corruptions(image, out, names=names or NAMES, size=size, seed=seed)
    print(f"drawn: {out}")


def draw_generators(
    *,
    out: Annotated[NewFile, "the PNG to write"] = "generators.png",
    count: int = 24,
    datasets: Annotated[Names, "prepared data sets, whose sources to draw, A,B"] = (),
    data_dir: DataDir = "data",
    size: Annotated[int, "side in pixels of the images"] = 128,
    seed: Annotated[int, "of the scenes and the generators"] = 0,
) -> None:
    """Mean residual spectra of simulated generators, beside those of real ones.

    Args:
        count: simulated generators
    """
    from rmjax.data.dataset import find_dataset, open_dataset
    from rmjax.report.spectra import preview_generators

    opened = [open_dataset(find_dataset(data_dir, name)) for name in datasets]
    preview_generators(out, count=count, datasets=opened, size=size, seed=seed)
    print(f"drawn: {out}")


PREVIEW = Group(
    "draw what is done to images, and what generators leave in them",
    "WHAT",
    {"corruptions": draw_corruptions, "generators": draw_generators},
)
