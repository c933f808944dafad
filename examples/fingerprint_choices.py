"""What each choice of the fingerprint network is worth, on images of real generators.

Trains a smaller setting of `--config fingerprint` once as it is, and once with each choice
made otherwise, by several seeds; has `rmjax gallery benchmark` measure each; prints a table:

    python examples/fingerprint_choices.py --workdir runs/choices \\
        --test image_folder/networks:real,fsrcnn_x2 --test image_folder/generators

--test names a prepared data set and, after a colon, those of its sources that choices may
be made by. What is measured already is not measured again. Pictures without a history are a
data set of their own, which `free_pictures.py --plain` cuts.
"""

import argparse
import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import numpy as np

import rmjax
from rmjax import losses
from rmjax.data.dataset import find_dataset
from rmjax.errors import InputError
from rmjax.experiment.config import load_config
from rmjax.gallery.benchmark import benchmark_extractor
from rmjax.simulate import PARTS
from rmjax.utils.files import read_json, write_csv, write_json

K = 10  # images that are enrolled
SETTING = {
    "data.crop": 64,
    "simulate.generators": 15,
    "batch_size": 64,
    "steps_per_epoch": 50,
    "num_epochs": 5,
    "eval_every_epochs": 5,
    "optim.lr_decay": 0.7,
}


@dataclass(frozen=True)
class Choice:
    """One choice made otherwise: keys of the config, or the loss's temperature."""

    config: dict
    temperature: float | None = None


CHOICES = {
    "as shipped": Choice({}),
    **{f"without {part}": Choice({"simulate.without": (part,)}) for part in PARTS},
    "pictures without a history": Choice({"data.name": "image_folder/plain_pictures"}),
    "temperature 0.2": Choice({}, temperature=0.2),
    "input: of chroma alone": Choice({"model.input": "chroma"}),
    "network: shallow": Choice({"model.arch": "shallow"}),
    "learning rate down to a fortieth": Choice({"optim.lr_decay": 0.4}),
    "mixed features, within a generator": Choice({"mix.name": "pairs", "mix.block": 4}),
    "mixed features, of any generators": Choice({"mix.name": "pairs", "mix.block": 16}),
    "a tenth blurred, a tenth JPEG": Choice(
        {"corrupt.recipe": "blur_jpeg", "corrupt.rate": 0.1}
    ),
}


@contextlib.contextmanager
def loss_temperature(value: float | None) -> Iterator[None]:
    """Train at another temperature meanwhile; None: as it is."""
    shipped = losses.LOSSES["fingerprint"]
    if value is not None:
        losses.LOSSES["fingerprint"] = replace(shipped, temperature=value)
    try:
        yield
    finally:
        losses.LOSSES["fingerprint"] = shipped


def measure(folder: Path, choice: Choice, seed: int, tests: list[str]) -> dict:
    """Train and benchmark; return AUC and Rank-1 by test, as `folder` has them if it does."""
    out = folder / "figures.json"
    figures = read_json(out) if out.exists() else {}
    missing = [test for test in tests if test not in figures]
    for test in missing:  # before minutes of training
        find_dataset("data", test.partition(":")[0])
    if missing:
        changes = SETTING | choice.config | {"seed": seed}
        config = load_config(
            "fingerprint", [f"--config.{key}={value}" for key, value in changes.items()]
        )
        with loss_temperature(choice.temperature):
            rmjax.train(config, folder, show_progress=False)
        figures |= {test: benchmark(folder, test) for test in missing}
        write_json(out, figures)
        # What was compiled for this run would keep its memory mapped, and dozens of runs
        # would come to the number of mappings that Linux allows a process.
        jax.clear_caches()
    return {
        f"{test.partition(':')[0].removeprefix('image_folder/')}: {name}": value
        for test in tests
        for name, value in figures[test].items()
    }


def benchmark(folder: Path, test: str) -> dict[str, float]:
    """Return AUC and Rank-1 of a run on the images of DATA[:SOURCES]."""
    data, _, sources = test.partition(":")
    found = benchmark_extractor(
        folder,
        data,
        sources=sources.split(",") if sources else None,
        ks=(K,),
        bootstrap=1,
        suite="clean",
        features=["network"],
        show_progress=False,
    )
    row = next(row for row in found["rows"] if row["space"] == "cosine")
    other = next(r for r in row["identification"] if r["content"] == "other")
    return {
        "AUC": round(row["verification"]["auc"]["mean"], 4),
        "Rank-1": round(other["rank1_neighbours"]["mean"], 4),
    }


def tabulate(rows: list[dict]) -> str:
    """Return a Markdown table: mean and deviation over seeds, and the mean gain."""
    columns = [name for name in rows[0] if name not in ("choice", "seed")]
    lines = [
        "| choice | " + " | ".join(columns) + " |",
        "| --- |" + " --: |" * len(columns),
    ]
    for name in CHOICES:
        values, shipped = (
            np.array([[row[c] for c in columns] for row in rows if row["choice"] == of])
            for of in (name, "as shipped")
        )
        deviations = values.std(0, ddof=min(1, len(values) - 1))
        gains = (values - shipped).mean(0)
        cells = [
            f"{mean:.3f} ±{deviation:.3f} ({gain:+.3f})"
            for mean, deviation, gain in zip(
                values.mean(0), deviations, gains, strict=True
            )
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure all choices by all seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--workdir",
        type=Path,
        required=True,
        help="folder of all runs and of the table",
    )
    parser.add_argument(
        "--test",
        action="append",
        required=True,
        metavar="DATA[:SOURCES]",
        help="prepared data set to measure by; may be given again",
    )
    parser.add_argument("--seeds", default="0,1,2", help="default: 0,1,2")
    arguments = parser.parse_args()
    rows = []
    for seed in map(int, arguments.seeds.split(",")):
        for name, choice in CHOICES.items():
            folder = arguments.workdir / re.sub(r"\W+", "_", name) / str(seed)
            try:
                figures = measure(folder, choice, seed, arguments.test)
            except InputError as error:
                parser.error(str(error))
            rows.append({"choice": name, "seed": seed, **figures})
            print(rows[-1], flush=True)
    write_csv(arguments.workdir / "choices.csv", rows[0], rows)
    print(tabulate(rows))


if __name__ == "__main__":
    main()
