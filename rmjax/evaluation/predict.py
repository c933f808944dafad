"""Running a network over whole selections of images, clean or under many conditions.

A batch is read and decoded once, put on the devices once, and goes through every
condition there. What comes out lies in files that grow batch by batch, so a run that
was stopped resumes.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from rmjax.data.dataset import Selection
from rmjax.data.features import FeatureTable
from rmjax.data.pipeline import ImageCache, eval_batches
from rmjax.evaluation.answers import Answers
from rmjax.evaluation.metrics import Predictions
from rmjax.evaluation.results import subset_words
from rmjax.evaluation.robustness import (
    CLEAN,
    IMAGE_CODE,
    IMAGE_LIBRARIES,
    Condition,
    Corrupter,
    cache_file,
    describe_folder,
)
from rmjax.experiment import hosts, parallel
from rmjax.experiment.build import build_resize, embedding_size, make_eval_step
from rmjax.experiment.run import run_facts
from rmjax.experiment.step import PyTree
from rmjax.utils.revision import revision

# What answers depend on beside images and weights: code, and libraries.
ANSWER_CODE = (
    *IMAGE_CODE,
    "rmjax.models",
    "rmjax.baselines",
    "rmjax.experiment",
    "rmjax.evaluation.predict",
)
ANSWER_LIBRARIES = (*IMAGE_LIBRARIES, "flax")

SAMPLED = 64  # files of a split that its digest covers

# What to run on: a selection and its splits.
Part = tuple[Selection, tuple[str, ...]]
# Number of a batch, number of a condition, and what the network makes of the images.
Answer = tuple[int, int, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Runner:
    """A compiled network, without mixing, to run over selections.

    Attributes:
        config: of the run.
        num_sources: of the network.
        devices: where it runs, of all processes.
        step: `(variables, batch) -> outputs` over the devices.
        corrupter: makes the conditions.
        cache: keeps decoded images.
        workers: processes that decode; 0 decodes in threads of this one.
    """

    config: ConfigDict
    num_sources: int
    devices: parallel.Devices
    step: Callable[[PyTree, PyTree], PyTree]
    corrupter: Corrupter
    cache: ImageCache
    workers: int = 0

    @property
    def batch_size(self) -> int:
        """Return the images of a batch over all devices."""
        return self.config.eval_batch_size * len(self.devices)

    def run(
        self,
        variables: PyTree,
        part: Part,
        conditions: Sequence[Condition] = (CLEAN,),
        first: int = 0,
    ) -> Iterator[Answer]:
        """Run over a part's images, batch by batch, from batch number `first` on.

        Yields:
            Of each batch and condition `embedding`, `attribution` and `detection`,
            without padding.
        """
        selection, splits = part
        order = list(selection.dataset.split_sizes)
        split_numbers = np.array([order.index(split) for split in splits], np.int32)
        folder = None
        if tuple(conditions) != (CLEAN,):
            folder = self.corrupter.cache_folder(selection, splits, self.batch_size)
        batches = eval_batches(
            selection,
            splits,
            batch_size=self.batch_size,
            size=self.config.data.eval_size,
            resizing=build_resize(self.config.data, self.config.data.eval_resize),
            first_batch=first,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_workers=self.workers,
            cache=self.cache,
        )
        left = selection.size(*splits) - first * self.batch_size

        def fetch(number: int, k: int, outputs: PyTree, real: int) -> Answer:
            whole = parallel.fetch(outputs)
            return number, k, {name: rows[:real] for name, rows in whole.items()}

        waiting = None
        for number, batch in enumerate(batches, first):
            needed = {name: batch[name] for name in ("image", "index")}
            needed["split"] = split_numbers[batch["split"]]
            sharded = parallel.shard(needed, self.devices)
            for k, condition in enumerate(conditions):
                file = cache_file(folder, condition, number)
                images = self.corrupter(condition, sharded, file)
                outputs = self.step(variables, {"image": images})
                # One ahead: the devices work while the host takes in the last answer.
                if waiting is not None:
                    yield fetch(*waiting)
                waiting = number, k, outputs, min(left, self.batch_size)
            left -= self.batch_size
        if waiting is not None:
            yield fetch(*waiting)

    def predict(
        self, variables: PyTree, part: Part, bar: tqdm | None = None
    ) -> Predictions:
        """Return the `Predictions` of a part's images, in the data set's order."""
        batches = []
        for _, _, outputs in self.run(variables, part):
            batches.append(outputs)
            if bar is not None:
                bar.update(len(outputs["detection"]))
        return Predictions(**_truth([part]), **_join(batches))


def make_runner(
    config: ConfigDict,
    num_sources: int,
    devices: parallel.Devices,
    cache_dir: str | Path | None = None,
    workers: int = 0,
) -> Runner:
    """Compile the config's network for evaluation.

    Args:
        config: of the run.
        num_sources: of the network.
        devices: where to run; of all processes, which then go through the same calls
            together and all have the answers.
        cache_dir: folder to keep corrupted images in, for other runs.
        workers: processes that decode. They start anew for every selection, and share
            no cache of images: not for selections that are gone over again and again.
    """
    return Runner(
        config=config,
        num_sources=num_sources,
        devices=devices,
        step=make_eval_step(config, num_sources, devices),
        corrupter=Corrupter(config, parallel.local(devices), cache_dir),
        cache=ImageCache(config.data.cache_mib * 2**20),
        workers=workers,
    )


@dataclass(frozen=True)
class Grid:
    """What a network said of the images of several parts under several conditions.

    Attributes:
        conditions: the first is clean.
        rows: which images belong to each part.
        truth: `source`, `semantic`, `group`, `split` and `index` of all images, `[N]`.
        embedding: fingerprints of the clean images, float32 `[N, 256]`.
        attribution: gated logits, float32 `[conditions, N, num_sources]`.
        detection: logits of real and synthetic, float32 `[conditions, N, 2]`.
    """

    conditions: tuple[Condition, ...]
    rows: Mapping[str, slice]
    truth: Mapping[str, np.ndarray]
    embedding: np.ndarray
    attribution: np.ndarray
    detection: np.ndarray

    def predictions(self, number: int, part: str) -> Predictions:
        """Return what was said of a part under a condition.

        Fingerprints are those of clean images; `[N, 0]` under any other condition.
        """
        rows = self.rows[part]
        embedding = self.embedding[rows]
        return Predictions(
            **{name: values[rows] for name, values in self.truth.items()},
            embedding=embedding if number == 0 else embedding[:, :0],
            attribution=self.attribution[number, rows],
            detection=self.detection[number, rows],
        )


def predict_grid(
    runner: Runner,
    variables: PyTree,
    parts: Mapping[str, Part],
    conditions: Sequence[Condition],
    folder: Path,
    bar: tqdm,
) -> Grid | None:
    """Run the network on all parts under all conditions, the first of them clean.

    Args:
        runner: the network.
        variables: parameters and batch statistics, on the devices.
        parts: what to run on, by name.
        conditions: what happens to the images.
        folder: where the answers are kept, and found by a run that goes on; to be
            removed when they have been used.
        bar: counts images times conditions.

    Returns:
        The answers, in process 0; None in any other.

    Raises:
        InputError: the folder can't be written to, or has no room.
    """
    rows, end = {}, 0
    for name, part in parts.items():
        start, end = end, end + count_images({name: part})
        rows[name] = slice(start, end)
    shapes = {
        "embedding": (end, embedding_size(runner.config, runner.num_sources)),
        "attribution": (len(conditions), end, runner.num_sources),
        "detection": (len(conditions), end, 2),
    }
    key = digest_answers(runner, variables, parts, conditions)
    answers = Answers(folder, shapes, key) if hosts.is_first() else None
    done = hosts.gather(answers and answers.done)[0]
    bar.update(done * len(conditions))
    for name, part in parts.items():
        start, stop = rows[name].start, rows[name].stop
        if max(done, start) >= stop:
            continue
        bar.set_description(subset_words(name))
        first = max(done - start, 0) // runner.batch_size
        for number, k, outputs in runner.run(variables, part, conditions, first):
            bar.update(len(outputs["attribution"]))
            if answers is not None:
                row = start + number * runner.batch_size
                _write(answers, row, k, outputs, last=k == len(conditions) - 1)
    if answers is None:
        return None
    return Grid(tuple(conditions), rows, _truth(parts.values()), **answers.load())


def _write(
    answers: Answers, row: int, k: int, outputs: Mapping[str, np.ndarray], last: bool
) -> None:
    """Keep what was said of a batch, from an image on, under a condition."""
    if k == 0:
        answers.write("embedding", (row,), outputs["embedding"])
    for name in ("attribution", "detection"):
        answers.write(name, (k, row), outputs[name])
    if last:
        answers.finish(row + len(outputs["attribution"]))


def count_images(parts: Mapping[str, Part]) -> int:
    """Return how many images the parts hold."""
    return sum(selection.size(*splits) for selection, splits in parts.values())


def digest_images(parts: Mapping[str, Part]) -> str:
    """Return a SHA-256 of which images the parts hold, and of what they are labelled.

    Of the files themselves `SAMPLED` of each split count, spread evenly: what was
    prepared from other files, or encoded anew, has another digest. Of stored features
    nothing does: the images are the same, whatever network saw them.
    """
    digest = hashlib.sha256()
    for name, part in parts.items():
        selection, splits = part
        facts = [name, splits, selection.source_names, selection.semantic_names]
        digest.update(json.dumps(facts).encode())
        for values in _truth([part]).values():
            digest.update(np.asarray(values, np.int64).tobytes())
        if not isinstance(selection.dataset, FeatureTable):
            for data in _sample(part):
                digest.update(data)
    return digest.hexdigest()


def _sample(part: Part) -> Iterator[bytes]:
    """Yield some of the files of a part, or of its stored features."""
    selection, splits = part
    for split in splits:
        records = selection.records[split]
        places = np.linspace(0, len(records) - 1, min(len(records), SAMPLED))
        chosen = records[places.astype(int)].tolist()
        for _, data in selection.dataset.files(split).read(chosen):
            yield data


def digest_answers(
    runner: Runner,
    variables: PyTree,
    parts: Mapping[str, Part],
    conditions: Sequence[Condition] = (CLEAN,),
) -> str:
    """Return a SHA-256 of all that answers depend on, to tell old ones from others."""
    digest = hashlib.sha256(digest_images(parts).encode())
    if runner.config.data.features:
        for part in parts.values():
            for data in _sample(part):
                digest.update(data)
    for leaf in jax.tree.leaves(variables):
        digest.update(np.asarray(leaf).tobytes())
    config = runner.config
    facts = {
        "code": revision(ANSWER_CODE, ANSWER_LIBRARIES),
        "config": run_facts(config) | {"eval_batch_size": config.eval_batch_size},
        "conditions": [str(condition) for condition in conditions],
        "frost": describe_folder(config.corrupt.frost_dir),
    }
    return hashlib.sha256(digest.digest() + json.dumps(facts).encode()).hexdigest()


def _truth(parts: Iterable[Part]) -> dict[str, np.ndarray]:
    """Return what is known of the parts' images, in the order of `eval_batches`."""
    return _join(
        {
            **selection.labels[split],
            "index": selection.records[split].astype(np.int32),
            "split": np.full(len(selection.records[split]), place, np.int32),
        }
        for selection, splits in parts
        for place, split in enumerate(splits)
    )


def _join(batches: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Concatenate arrays by name."""
    batches = list(batches)
    return {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
