"""What turns logits into probabilities and decisions, stored with the run.

`rmjax.evaluation.calibration` fits it.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy.special import log_softmax

from rmjax.errors import InputError
from rmjax.utils.files import write_json
from rmjax.utils.places import reason

CALIBRATION_FILE = "calibration.json"
_VERSION = 1


@dataclass(frozen=True)
class Calibration:
    """How logits of one checkpoint become probabilities and decisions.

    Attributes:
        images: validation images that it was fitted on; 0: none, and then it leaves
            the network's own softmax as it is.
        attribution: temperature that gated logits are divided by.
        detection: temperature of the logits of real and synthetic.
        reject: with `threshold`, the probability of the best source under which an
            image is called unknown; `fpr`, the stated share of known validation images
            that are; `achieved`, their real share; `score`. None without images.
        operating_points: for each stated `fpr` the `threshold` of P(synthetic) from
            which on an image is called synthetic, the `real_images` that it rests on
            and the share of them `achieved`.
        validation: ECE, Brier score and NLL on the validation images, before and
            after, of `attribution` and `detection`.
        digest: of all that it was made from: code, network, images and stated rates.
    """

    images: int = 0
    attribution: float = 1.0
    detection: float = 1.0
    reject: dict | None = None
    operating_points: tuple[dict, ...] = ()
    validation: dict | None = None
    digest: str = ""

    def attribute(self, logits: np.ndarray) -> np.ndarray:
        """Return the probability of each source, float64 `[N, num_sources]`."""
        return np.exp(log_probabilities(logits, self.attribution))

    def detect(self, logits: np.ndarray) -> np.ndarray:
        """Return the probability of being synthetic, float64 `[N]`."""
        return np.exp(log_probabilities(logits, self.detection))[:, 1]

    def probabilities(self, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return `attribution` `[N, num_sources]` and `detection` `[N, 2]` of logits."""
        synthetic = self.detect(outputs["detection"])
        return {
            "attribution": self.attribute(outputs["attribution"]),
            "detection": np.stack([1 - synthetic, synthetic], axis=-1),
        }

    def rejects(self, logits: np.ndarray) -> np.ndarray:
        """Tell by attribution logits which images are of no known source, bool `[N]`.

        Only where there is a `reject` threshold.
        """
        assert self.reject is not None
        return self.attribute(logits).max(-1) < self.reject["threshold"]


UNCALIBRATED = Calibration()


def save_calibration(workdir: Path, checkpoint: int, calibration: Calibration) -> None:
    """Store a calibration with its run, beside those of other checkpoints.

    Raises:
        InputError: the file can't be written, or not be read.
    """
    path = workdir / CALIBRATION_FILE
    stored = {step: asdict(c) for step, c in _read(path).items()}
    stored[str(checkpoint)] = asdict(calibration)
    try:
        write_json(path, {"schema_version": _VERSION, "checkpoints": stored})
    except OSError as error:
        raise InputError(f"can't write {path}: {reason(error)}") from error


def load_calibration(workdir: Path, checkpoint: int) -> Calibration:
    """Return the stored calibration of a checkpoint, or else `UNCALIBRATED`.

    Raises:
        InputError: the file can't be read.
    """
    return _read(workdir / CALIBRATION_FILE).get(str(checkpoint), UNCALIBRATED)


def parse_calibration(found: dict) -> Calibration:
    """Return a calibration of what JSON made of its fields."""
    points = tuple(found["operating_points"])
    return Calibration(**found | {"operating_points": points})


def _read(path: Path) -> dict[str, Calibration]:
    """Return the stored calibrations by checkpoint."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema_version"] == _VERSION:
            return {
                step: parse_calibration(found)
                for step, found in content["checkpoints"].items()
            }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise InputError(
        f"{path}: damaged, or of another version of rmjax; remove it and run `rmjax "
        "evaluate` again"
    )


def log_probabilities(logits: np.ndarray, temperature: float) -> np.ndarray:
    """Return log softmax(logits / temperature), float64 `[N, classes]`."""
    return log_softmax(np.asarray(logits, np.float64) / temperature, axis=-1)
