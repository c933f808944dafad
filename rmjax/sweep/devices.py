"""What each of several runs at once gets of a machine: accelerators and threads."""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from rmjax.errors import InputError

_PORT = 8476  # of the first TPU process; each needs one of its own


def shares(
    jobs: int, environ: Mapping[str, str], dev: Path = Path("/dev")
) -> list[dict[str, str]]:
    """Return for each job that runs at once what to set in its environment.

    A lone job sees everything. Of GPUs (those of CUDA_VISIBLE_DEVICES, or all) each job
    gets an equal number; where jobs are more than GPUs, some share one and nine tenths
    of its memory, or each has what XLA_PYTHON_CLIENT_MEM_FRACTION says.
    Of TPU chips (those of TPU_VISIBLE_CHIPS, or all) each job gets one. Processors are
    shared by all.

    Args:
        jobs: how many run at once.
        environ: environment of this process.
        dev: folder of the machine's devices.

    Raises:
        InputError: more jobs than TPU chips, which can't be shared.
    """
    if jobs == 1:
        return [{}]
    if chips := _tpu_chips(environ, dev):
        if jobs > len(chips):
            raise InputError(
                f"--jobs {jobs}: there are {len(chips)} TPU chips, and a job needs one"
            )
        return [
            {
                "TPU_VISIBLE_CHIPS": chip,
                "TPU_PROCESS_BOUNDS": "1,1,1",
                "TPU_CHIPS_PER_PROCESS_BOUNDS": "1,1,1",
                "TPU_PROCESS_ADDRESSES": f"localhost:{port}",
                "TPU_PROCESS_PORT": f"{port}",
            }
            for port, chip in enumerate(chips[:jobs], _PORT)
        ]
    gpus = _listed(environ, "CUDA_VISIBLE_DEVICES", dev, r"nvidia(\d+)")
    if "CUDA_VISIBLE_DEVICES" not in environ:
        # CUDA counts those that it sees; a container may see /dev/nvidia2 alone.
        gpus = [str(number) for number in range(len(gpus))]
    if not gpus:
        return [{} for _ in range(jobs)]
    if each := len(gpus) // jobs:
        groups = [gpus[job * each : (job + 1) * each] for job in range(jobs)]
        return [{"CUDA_VISIBLE_DEVICES": ",".join(own)} for own in groups]
    # JAX takes three quarters of a GPU's memory at its start unless told otherwise.
    name, sharing = "XLA_PYTHON_CLIENT_MEM_FRACTION", -(-jobs // len(gpus))
    memory = {name: environ.get(name, f"{0.9 / sharing:.2f}")}
    return [
        {"CUDA_VISIBLE_DEVICES": gpus[job % len(gpus)]} | memory for job in range(jobs)
    ]


def threads(jobs: int, cores: int, environ: Mapping[str, str]) -> dict[str, str]:
    """Return what to set so that jobs at once don't wait for each other's threads.

    OpenMP's threads, which scikit-learn's t-SNE has, spin until all of them are done: on
    processors that others work on as well, most of the time. Each job gets its share of
    `cores`, unless `environ` says how many.
    """
    name = "OMP_NUM_THREADS"
    if jobs == 1 or name in environ:
        return {}
    return {name: str(max(cores // jobs, 1))}


def _tpu_chips(environ: Mapping[str, str], dev: Path) -> list[str]:
    if find_spec("libtpu") is None:
        return []
    name = "TPU_VISIBLE_CHIPS"
    return _listed(environ, name, dev, r"accel(\d+)") or _listed(
        environ, name, dev / "vfio", r"(\d+)"
    )


def _listed(
    environ: Mapping[str, str], name: str, dev: Path, pattern: str
) -> list[str]:
    """Return the numbers of a variable, or where it is not set those of the devices."""
    if name in environ:
        return [part.strip() for part in environ[name].split(",") if part.strip()]
    names = [file.name for file in dev.iterdir()] if dev.is_dir() else []
    matches = [match for name in names if (match := re.fullmatch(pattern, name))]
    return sorted((match[1] for match in matches), key=int)
