"""The commands that show what data is like: audit, preview."""

from pathlib import Path
from typing import Annotated

from rmjax.cli.options import DataDir, Names, NewFile, NewFolder
from rmjax.cli.parser import Group


def audit_dataset(
    dataset: str,
    *,
    data_dir: DataDir = "data",
    out: NewFolder | None = None,
    splits: Names = ("all",),
    sources: Names = (),
    semantics: Names = (),
    folds: int = 5,
    seed: int = 0,
    max_images: int = 20_000,
) -> None:
    """How well file, size or scene alone tell the source.

    Args:
        dataset: such as image_folder/mine
        out: folder of the figures (default: audit/DATASET)
        splits: A,B or all
        sources: A,B (default: all with images)
        semantics: A,B (default: all)
        folds: of the cross-validation
        seed: of the choice of images, the folds and the classifiers
        max_images: of more, so many, all sources alike
    """
    from rmjax.audit.audit import audit
    from rmjax.audit.report import format_audit, write_audit
    from rmjax.data.dataset import find_dataset, open_dataset
    from rmjax.utils.files import check_writable

    opened = open_dataset(find_dataset(data_dir, dataset))
    folder = Path(out or Path("audit") / dataset)
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
