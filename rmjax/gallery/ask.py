"""A gallery and its network: make one, enrol image files, ask about others."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rmjax.data.dataset import Selection, take
from rmjax.data.image_files import ImageFile, read_file
from rmjax.errors import InputError
from rmjax.evaluation.predict import make_runner
from rmjax.experiment.build import embedding_size
from rmjax.experiment.data import open_data
from rmjax.gallery.search import (
    BY,
    REJECT,
    Score,
    Threshold,
    answer,
    approximate,
    choose_threshold,
)
from rmjax.gallery.store import (
    FILE,
    SPACES,
    Gallery,
    check_name,
    digest,
    empty_gallery,
    enrol,
    load_gallery,
    locked,
    save_gallery,
    stored_index,
)
from rmjax.inference.attribute import run_together
from rmjax.inference.attributor import Attributor
from rmjax.utils.checks import check_at_least
from rmjax.utils.choose import choose

FIT_IMAGES = 5000  # at most, that a space is fitted to
AT_ONCE = 256  # images held at once: bounds the memory
SPLIT = "val"  # not trained on, and not what an evaluation is about


def identify(model: Attributor) -> str:
    """Return a digest of all that a fingerprint depends on but the image.

    Of the parameters, the checkpoint, the names of the sources, and what is done to an
    image before the network.
    """
    data = model.image_config
    facts = (
        model.digest,
        str((model.checkpoint, model.source_names, model.config.model.to_dict())),
        str((data.eval_resize, data.eval_size, data.filter, data.squash)),
    )
    return digest("\n".join(facts).encode())


def check_network(gallery: Gallery, model: Attributor) -> None:
    """Check that a gallery holds fingerprints of this network.

    Raises:
        InputError: it holds another's.
    """
    if gallery.network != identify(model):
        raise InputError(
            "the gallery holds fingerprints of another network or checkpoint, which "
            "can't be compared; give the --workdir it was made with, or enrol anew elsewhere"
        )


def check_fingerprints(model: Attributor) -> None:
    """Check that a network makes fingerprints.

    Raises:
        InputError: it is a bare backbone.
    """
    if model.layer != "embedding":
        raise InputError(
            f"{model.name} makes no fingerprints: a gallery needs a trained run, or a "
            "RepMix"
        )


def new_gallery(
    model: Attributor, space: str | None = None, data_dir: str | None = None
) -> Gallery:
    """Return an empty gallery in a space fitted to the run's validation images.

    Args:
        model: a loaded run.
        space: key of `store.SPACES`; None: `whitened`, or `cosine` for a network
            without sources, which has nothing to fit another to.
        data_dir: where its data set lies, if not where the run found it.

    Raises:
        InputError: no such space, none for this network, a bare backbone, or the data
            set is not there.
    """
    space = space or ("whitened" if model.source_names else "cosine")
    check_fingerprints(model)
    fit = choose("space", space, SPACES)
    if space == "cosine":  # needs no images: the data set may be elsewhere
        size = embedding_size(model.config, len(model.source_names))
        return empty_gallery(identify(model), fit(np.empty((0, size)), np.empty(0)))
    if not model.source_names:
        raise InputError(
            f"space {space} is fitted to images of known sources, and {model.name} knows "
            "none: leave it out, or give the --workdir of a run with sources"
        )
    known = _open(model, data_dir)
    rows = np.arange(known.size(SPLIT))
    if len(rows) > FIT_IMAGES:
        rng = np.random.default_rng(0)
        rows = np.sort(rng.choice(rows, FIT_IMAGES, replace=False))
    runner = make_runner(model.config, len(model.source_names), model.devices)
    validation = take(known, SPLIT, rows), (SPLIT,)
    predictions = runner.predict(model.variables, validation)
    fitted = fit(predictions.embedding, predictions.source)
    return empty_gallery(identify(model), fitted)


def change_gallery(
    folder: Path,
    model: Attributor,
    change: Callable[[Gallery], Gallery],
    *,
    space: str | None = None,
    data_dir: str | None = None,
) -> Gallery:
    """Change the gallery in a folder, or make it, while nobody else may; return it.

    Args:
        folder: of the gallery.
        model: the network.
        change: returns the gallery as it is to be.
        space: as for `new_gallery`; a gallery that is there has to be in it.
        data_dir: as for `new_gallery`.

    Raises:
        InputError: the gallery is another network's, in another space, damaged, or
            can't be written; or as of `new_gallery`, `locked` and `change`.
    """
    with locked(folder):
        if (folder / FILE).exists():
            gallery = load_gallery(folder)
            check_network(gallery, model)
            if space not in (None, gallery.space.name):
                raise InputError(
                    f"--space {space}: this gallery's is {gallery.space.name}; "
                    "make another one"
                )
        else:
            gallery = new_gallery(model, space, data_dir)
        changed = change(gallery)
        save_gallery(folder, changed)
    return changed


def enrol_files(
    gallery: Gallery,
    model: Attributor,
    name: str,
    files: Sequence[str | Path | ImageFile],
) -> Gallery:
    """Return the gallery with image files enrolled as a generator's.

    Raises:
        InputError: the name is a trained source's or no name, or an image can't be
            read, comes twice, or is enrolled already.
    """
    if name in model.source_names:
        raise InputError(
            f"{name} is a source that the network was trained on: enrol those with "
            "`rmjax gallery add --trained`"
        )
    check_name(gallery, name, trained=False)
    images: list[tuple[str, str]] = []
    embedding = [np.empty((0, len(gallery.space.centre)), np.float32)]
    for first in range(0, len(files), AT_ONCE):
        read = read_images(model, files[first : first + AT_ONCE])
        if read.errors:
            raise InputError(f"{read.errors[0]}; nothing was enrolled")
        images += zip(read.names, read.digests, strict=True)
        (outputs,) = run_together(model, [read.pixels])
        embedding.append(outputs["embedding"])
    return enrol(gallery, name, images, np.concatenate(embedding))


def enrol_trained(
    gallery: Gallery,
    model: Attributor,
    count: int,
    *,
    split: str = SPLIT,
    seed: int = 0,
    data_dir: str | None = None,
) -> Gallery:
    """Return the gallery with images of every trained source that is not in it.

    Args:
        gallery: what to add to.
        model: the run.
        count: images of each source, by chance.
        split: of the run's data set; training images lie closer together than new
            ones ever will.
        seed: of the choice.
        data_dir: where the data set lies, if not where the run found it.

    Raises:
        InputError: there are none, all are enrolled, or the split has too few images of one.
    """
    check_at_least(1, k=count)
    if not model.source_names:
        raise InputError(f"{model.name} knows no sources that could be enrolled")
    known = _open(model, data_dir)
    wanted = [name for name in model.source_names if name not in gallery.names]
    if not wanted:
        raise InputError("all trained sources are enrolled; remove them to choose anew")
    records = known.dataset.records(split)
    source, rng = known.labels[split]["source"], np.random.default_rng(seed)
    for name in wanted:
        rows = np.flatnonzero(source == model.source_names.index(name))
        if len(rows) < count:
            raise InputError(
                f"only {len(rows)} images of {name} in split {split}: give a smaller "
                "--k, or another --split"
            )
        numbers = known.records[split][rng.choice(rows, count, replace=False)]
        files = [records[int(i)] for i in numbers]
        images = [(f"{split}:{f['path'].decode()}", digest(f["image"])) for f in files]
        embedding = model.embed([f["image"] for f in files])
        gallery = enrol(gallery, name, images, embedding, trained=True)
    return gallery


@dataclass(frozen=True)
class Read:
    """Image files that were read.

    Attributes:
        names: of those that could be.
        digests: SHA-256 of their bytes.
        pixels: as `Attributor.read` makes them, uint8 `[H, W, 3]` each.
        errors: a line for each that could not.
    """

    names: list[str]
    digests: list[str]
    pixels: list[np.ndarray]
    errors: list[str]


def read_images(model: Attributor, files: Sequence[str | Path | ImageFile]) -> Read:
    """Read image files for a network; those that can't be are left out and named."""
    read = Read([], [], [], [])
    for file in files:
        try:
            name, data = read_file(file)
            pixels = model.read(data, name)
        except InputError as error:
            read.errors.append(str(error))
            continue
        read.names.append(name)
        read.digests.append(digest(data))
        read.pixels.append(pixels)
    return read


@dataclass(frozen=True)
class Asker:
    """A gallery made ready to be asked.

    Attributes:
        gallery: what is compared with.
        model: the network it is of.
        score: compares.
        threshold: below it an image is unknown.
    """

    gallery: Gallery
    model: Attributor
    score: Score
    threshold: Threshold

    def ask(self, pixels: Sequence[np.ndarray], top: int = 3) -> list[dict]:
        """Say of each image which generator it is most like.

        Args:
            pixels: what `read_images` made.
            top: how many generators to list.

        Returns:
            What `search.answer` says; where the network knows sources, each ranked
            generator with `trained`, and `network`, the network's own answer among the
            trained sources alone: `source`, `probability`, `calibrated`.
        """
        outputs, calibration = self.model.run(pixels), self.model.calibration
        answers = self.compare(outputs["embedding"], top)
        if not self.model.source_names:
            return answers
        sources = calibration.probabilities(outputs)["attribution"]
        trained = {g.name: g.trained for g in self.gallery.generators}
        for entry, probabilities in zip(answers, sources, strict=True):
            for row in entry["ranked"]:
                row["trained"] = trained[row["generator"]]
            entry["network"] = {
                "source": self.model.source_names[int(probabilities.argmax())],
                "probability": float(probabilities.max()),
                "calibrated": calibration.images > 0,
            }
        return answers

    def compare(self, embedding: np.ndarray, top: int) -> list[dict]:
        """Return what `search.answer` says of fingerprints `[N, D]`."""
        scores = self.score(self.gallery.space.directions(embedding))
        return answer(scores, self.gallery.names, self.threshold.value, top)


def load_asker(
    folder: str | Path,
    model: Attributor,
    *,
    by: str = "neighbours",
    reject: float = REJECT,
    by_index: bool = False,
) -> Asker:
    """Load a gallery, to be asked.

    Args:
        folder: of the gallery.
        model: the network it is of.
        by: `neighbours` or `prototypes`.
        reject: the share of enrolled images, each left out in turn, to reject.
        by_index: find neighbours approximately, see `search.approximate`; the threshold
            is chosen by exact search all the same.

    Raises:
        InputError: there is no gallery, it is another network's or empty, or a number is
            out of range.
    """
    if by_index and by != "neighbours":
        raise InputError("--approximate finds neighbours: leave out --by prototypes")
    check_fingerprints(model)
    folder = Path(folder)
    gallery = load_gallery(folder)
    check_network(gallery, model)
    score, threshold = choose_for(gallery, by, reject)
    if by_index:
        index = stored_index(folder, gallery.directions)
        score = approximate(index, gallery.starts)
    return Asker(gallery, model, score, threshold)


def choose_for(
    gallery: Gallery, by: str, reject: float = REJECT
) -> tuple[Score, Threshold]:
    """Return the exact comparison with a gallery's generators, and its threshold.

    Raises:
        InputError: the gallery is empty, or `reject` is not between 0 and 1.
    """
    if not gallery.generators:
        raise InputError("the gallery is empty: enrol with `rmjax gallery add`")
    enrolled = gallery.directions, gallery.starts
    score = BY[by](*enrolled)
    return score, choose_threshold(score, *enrolled, reject, new=gallery.new)


def _open(model: Attributor, data_dir: str | None) -> Selection:
    """Return the images of trained sources and semantics."""
    config = model.config.copy_and_resolve_references()
    if data_dir:
        config.data.dir = data_dir
    return open_data(config).seen
