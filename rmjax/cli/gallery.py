"""The `rmjax gallery` commands: new generators from a few images, without training."""

import sys
from functools import partial
from json import dumps
from pathlib import Path
from typing import Annotated, Literal

from rmjax.cli.options import (
    CopiedRun,
    Count,
    DataDir,
    Names,
    NewFile,
    NewFolder,
    RunDataDir,
    Weights,
    find_run,
)
from rmjax.cli.parser import Group, Word
from rmjax.errors import InputError, harmless

GALLERY_FOLDER = "gallery"  # of the current folder, where none is named
GalleryFolder = Annotated[str, "folder of the gallery"]
NewGallery = Annotated[NewFolder, "folder of the gallery"]
Reject = Annotated[
    float,
    Word(float, "SHARE"),
    "say unknown where at most this share of the enrolled images, each left out in "
    "turn, would be",
]


def enrol(
    name: str | None = None,
    images: list[str] | None = None,
    *,
    workdir: Weights = None,
    gallery: NewGallery = GALLERY_FOLDER,
    trained: bool = False,
    k: Count = 10,
    split: str = "val",
    seed: int = 0,
    space: str | None = None,
    data_dir: RunDataDir = None,
) -> None:
    """Enrol example images of a generator; makes the gallery.

    Args:
        name: of the generator
        images: examples of it, or folders of them
        trained: instead: enrol the sources that the run was trained on, from its data
        k: images of each of these
        split: where these are taken from
        seed: of their choice
        space: of a new gallery: whitened, fitted to the run's validation images, or
            cosine, of the fingerprints as they are (default: whitened; of a network
            without sources, cosine)
    """
    from rmjax.data.listing import list_files
    from rmjax.gallery import ask
    from rmjax.inference.attributor import load_pretrained

    folder = Path(gallery)
    if trained == bool(name):
        raise InputError("give NAME and IMAGEs, or --trained")
    model = load_pretrained(workdir)
    if name is None:
        change = partial(
            ask.enrol_trained,
            model=model,
            count=k,
            split=split,
            seed=seed,
            data_dir=data_dir,
        )
    else:
        files = list_files(images or [])
        change = partial(ask.enrol_files, model=model, name=name, files=files)
    enrolled = ask.change_gallery(folder, model, change, space=space, data_dir=data_dir)
    count = len(enrolled.directions)
    print(f"gallery: {folder}, {len(enrolled.generators)} generators, {count} images")


def remove_generators(
    names: list[str], *, gallery: NewGallery = GALLERY_FOLDER
) -> None:
    """Take generators out of a gallery.

    Args:
        names: of a generator
    """
    from rmjax.gallery.store import load_gallery, locked, remove, save_gallery

    folder = Path(gallery)
    load_gallery(folder)  # first: a lock would make the folder
    with locked(folder):
        rest = remove(load_gallery(folder), names)
        save_gallery(folder, rest)
    print(f"gallery: {folder}, {len(rest.generators)} generators")


def list_generators(
    *,
    gallery: GalleryFolder = GALLERY_FOLDER,
    reject: Reject = 0.05,
    json: bool = False,
) -> None:
    """What is enrolled, and what its thresholds rest on.

    Args:
        json: print JSON, with images
    """
    from rmjax.gallery.ask import choose_for
    from rmjax.gallery.search import BY
    from rmjax.gallery.store import load_gallery

    enrolled = load_gallery(Path(gallery))
    generators = [vars(generator) for generator in enrolled.generators]
    thresholds = {
        by: vars(choose_for(enrolled, by, reject)[1]) for by in BY if generators
    }
    if json:
        facts = {
            "network": enrolled.network,
            "space": enrolled.space.name,
            "generators": generators,
            "thresholds": thresholds,
        }
        print(dumps(facts, indent=2))
        return
    print(f"space: {enrolled.space.name}")
    for generator in generators:
        state = "trained" if generator["trained"] else "new"
        print(f"{generator['name']:<24}{len(generator['images']):>6} images  {state}")
    for by, threshold in thresholds.items():
        print(describe_threshold(by, threshold))


def describe_threshold(by: str, threshold: dict) -> str:
    """Say in words what a `search.Threshold` is and rests on."""
    if threshold["value"] is None:
        return f"{by}: no threshold, as no generator has two images: nothing is unknown"
    text = (
        f"{by}: unknown below {threshold['value']:.3f}, chosen by {threshold['images']} "
        f"images left out in turn ({threshold['rejected']:.1%} of them rejected)"
    )
    if threshold["accepted"] is None:
        return text
    return text + (
        f"; of {threshold['strangers']} images of new generators, each without its own, "
        f"{threshold['accepted']:.1%} are accepted as another's"
    )


def query_gallery(
    images: list[str],
    *,
    workdir: Weights = None,
    gallery: GalleryFolder = GALLERY_FOLDER,
    json: bool = False,
    top: Count = 3,
    by: Literal["neighbours", "prototypes"] = "neighbours",
    reject: Reject = 0.05,
    approximate: bool = False,
) -> int:
    """Which enrolled generator images are most like.

    Args:
        images: to ask about
        json: print a JSON line each
        top: generators to list
        by: compare with a generator's most similar image, or with the mean of its
            images
        approximate: find neighbours by an index, for very large galleries; needs
            pip install rmjax[ann]

    Returns:
        0 all images were answered, 1 some could not be read, 2 wrong arguments.
    """
    from rmjax.gallery import ask
    from rmjax.inference.attributor import load_pretrained

    model = load_pretrained(workdir)
    asker = ask.load_asker(gallery, model, by=by, reject=reject, by_index=approximate)
    if model.source_names and asker.gallery.new.all():
        print(
            "note: the trained sources are not enrolled, so no image can be found to be "
            "theirs; enrol them with `rmjax gallery add --trained`",
            file=sys.stderr,
        )
    print(describe_threshold(by, vars(asker.threshold)), file=sys.stderr)
    failed = 0
    for first in range(0, len(images), ask.AT_ONCE):
        read = ask.read_images(model, images[first : first + ask.AT_ONCE])
        for line in read.errors:
            print(f"rmjax gallery: error: {harmless(line)}", file=sys.stderr)
        failed += len(read.errors)
        answers = asker.ask(read.pixels, top) if read.names else []
        for name, answer in zip(read.names, answers, strict=True):
            entry = {"image": name, **answer, "threshold": asker.threshold.value}
            print(dumps(entry) if json else _describe(entry))
    if failed == len(images):
        raise InputError("none of the images could be read")
    return 1 if failed else 0


def _describe(entry: dict) -> str:
    lines = [f"{harmless(entry['image'])}: {entry['answer']}"]
    lines += [
        f"  {row['similarity']:7.3f}  {row['generator']}"
        + " (trained)" * row.get("trained", False)
        for row in entry["ranked"]
    ]
    if "network" in entry:
        network = entry["network"]
        uncalibrated = ", uncalibrated" * (not network["calibrated"])
        lines.append(
            f"  the network itself, among its sources: {network['source']}, "
            f"{network['probability']:.3f}{uncalibrated}"
        )
    return "\n".join(lines)


def measure_gallery(
    *,
    workdir: CopiedRun,
    k: tuple[Count, ...] = (1, 5, 10),
    draws: Count = 20,
    seed: int = 0,
    out: NewFile | None = None,
    data_dir: RunDataDir = None,
) -> None:
    """How well sources that the run held out are told from a few images.

    Args:
        k: images
        draws: choices of them
        seed: of these
        out: JSON file (default: gallery_evaluation.json in the run's folder)
    """
    from rmjax.gallery.evaluate import evaluate_gallery, format_gallery_evaluation
    from rmjax.utils.files import write_json
    from rmjax.utils.places import path_of

    folder = find_run(workdir)
    file = path_of(out or folder / "gallery_evaluation.json")
    results = evaluate_gallery(folder, ks=k, draws=draws, seed=seed, data_dir=data_dir)
    write_json(file, results)
    print(format_gallery_evaluation(results))
    print(f"\nresults: {file}")


def measure_extractor(
    *,
    data: str,
    workdir: Weights = None,
    data_dir: DataDir = "data",
    sources: Names | None = None,
    k: tuple[Count, ...] = (1, 5, 10, 50),
    draws: Count = 20,
    bootstrap: Count = 200,
    suite: str = "clean,jpeg:75,bilinear:0.5,blur:1",
    features: Names | None = None,
    seed: int = 0,
    out: NewFile | None = None,
) -> None:
    """How well fingerprints recognise generators of any data set.

    Beside what needs no training: features of the same network untrained, of its input,
    of spectra and of noise residuals.

    Args:
        data: name of a prepared data set; all its splits are used
        sources: of it (default: all)
        k: images of each source that are enrolled
        draws: choices of them
        bootstrap: draws of each interval
        suite: what the images go through, as for rmjax evaluate
        features: network, untrained, input, logdct, prnu (default: all)
        seed: of all choices and of random parameters
        out: JSON file (default: gallery_benchmark.json in the run's folder; without
            one, here)
    """
    from rmjax.gallery.benchmark import benchmark_extractor, format_benchmark
    from rmjax.utils.files import write_json
    from rmjax.utils.places import as_path, path_of

    folder = as_path(workdir or "")
    if not folder.is_dir():  # a file of weights
        folder = Path()
    file = path_of(out or folder / "gallery_benchmark.json")
    results = benchmark_extractor(
        workdir,
        data,
        data_dir=data_dir,
        sources=sources,
        ks=k,
        draws=draws,
        bootstrap=bootstrap,
        suite=suite,
        features=features,
        seed=seed,
    )
    write_json(file, results)
    print(format_benchmark(results))
    print(f"\nresults: {file}")


GALLERY = Group(
    "recognise new generators from a few images, without training",
    "WHAT",
    {
        "add": enrol,
        "remove": remove_generators,
        "list": list_generators,
        "query": query_gallery,
        "evaluate": measure_gallery,
        "benchmark": measure_extractor,
    },
)
