"""The `rmjax` command: parses arguments, calls the library, prints errors in one line."""

import atexit
import errno
import io
import logging
import os
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rmjax.cli.bench import BENCH
from rmjax.cli.data import PREVIEW, audit_dataset
from rmjax.cli.gallery import GALLERY
from rmjax.cli.images import (
    attribute_images,
    convert_weights,
    export_run,
    push_run,
    write_fingerprints,
)
from rmjax.cli.parser import Command, Group, Parser, add_commands, parse
from rmjax.cli.prepare import PREPARE
from rmjax.cli.runs import evaluate_run, plan_run, report_runs, train_run
from rmjax.cli.serve import serve_network
from rmjax.cli.sweep import run_grid
from rmjax.errors import InputError, Preempted, TrainingError, harmless
from rmjax.utils.cpu import choose_kernels, keep_memory
from rmjax.utils.files import check_writable
from rmjax.utils.places import is_of_store, reason
from rmjax.utils.versions import own_version

COMMANDS: Mapping[str, Command | Group] = {
    "prepare": PREPARE,
    "train": train_run,
    "evaluate": evaluate_run,
    "report": report_runs,
    "sweep": run_grid,
    "audit": audit_dataset,
    "preview": PREVIEW,
    "convert": convert_weights,
    "export": export_run,
    "push": push_run,
    "embed": write_fingerprints,
    "attribute": attribute_images,
    "gallery": GALLERY,
    "serve": serve_network,
    "bench": BENCH,
    "plan": plan_run,
}
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    0 is success, 1 that some of what was given could not be read, or some runs of a
    sweep failed, and the rest is done, 2 something wrong with what the user gave, 3 a
    training that can't go on, 70 that another process of the job was lost, 75 a
    training that was asked to stop (SIGTERM), saved and should be started again, 130
    an interrupt, 141 an output that was closed early (128 and the signal's number).
    """
    parser = Parser(
        prog="rmjax", description="Attribute images to the generator that made them."
    )
    parser.add_argument("--version", action="version", version=f"rmjax {own_version()}")
    add_commands(parser, COMMANDS)
    args, command = parse(parser, sys.argv[1:] if arguments is None else arguments)
    distributed = getattr(args, "distributed", False)
    status, message = _attempt(command, distributed)
    if message:
        print(f"rmjax {args.command}: {message}", file=sys.stderr)
    if distributed:
        from rmjax.experiment import hosts

        status = hosts.leave(status, message)
    return status


def _attempt(command: Callable[[], int | None], distributed: bool) -> tuple[int, str]:
    """Run a command; return its status and what to say of it in one line."""
    try:
        _prepare_process()
        status = command() or 0
        sys.stdout.flush()  # here, where a closed output is caught
        return status, ""
    except (InputError, TrainingError) as error:
        status = 2 if isinstance(error, InputError) else 3
        return status, f"error: {harmless(str(error))}"
    except Preempted as stop:
        return os.EX_TEMPFAIL, str(stop)
    except BrokenPipeError:  # whoever read the output, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141, ""
    except KeyboardInterrupt:
        return 130, "interrupted; run the same command again"
    except Exception as error:
        if is_of_store(error):
            return 2, f"error: {harmless(reason(error))}"
        if isinstance(error, OSError) and (
            error.filename is not None or error.errno in _NO_ROOM
        ):
            return 2, f"error: {harmless(_describe(error))}"
        if not distributed:
            raise
        from rmjax.experiment import hosts

        hosts.wait_for_reason(error)
        traceback.print_exc()
        return 1, f"error: {type(error).__name__}, see above"


def _describe(error: OSError) -> str:
    if error.errno not in _NO_ROOM:
        return f"{error.filename}: {error.strerror}"
    where = f" {error.filename}" if error.filename else ""
    return (
        f"can't write{where}: no room left on the disk; make room, then run the same "
        "command again"
    )


def _prepare_process() -> None:
    # Compiled programs are kept for the next command; JAX reads this when it is loaded.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_find_cache() / "rmjax"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    noisy_ones = "jax orbax faiss matplotlib httpx httpx2 python_multipart fsspec gcsfs"
    noisy_ones += " s3fs aiobotocore botocore"
    for noisy in noisy_ones.split():
        logging.getLogger(noisy).setLevel(logging.ERROR)
    logging.getLogger("huggingface_hub").propagate = False  # it prints by itself
    # What Orbax logs there as an error, with tracebacks, it raises as well.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    # Pillow's, of images that are large but below the limit of `rmjax.data.images`.
    warnings.filterwarnings("ignore", message=r"Image size \(\d+ pixels\) exceeds")
    keep_memory()
    choose_kernels()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # files' texts are in any alphabet


def _find_cache() -> Path:
    """Return where programs keep what they can make again, and see to a home.

    The users of containers often have no home, which libraries look for, or none to
    write to. A temporary folder of this process stands in: one that stays could be
    another user's.
    """
    home = os.path.expanduser("~")
    if home == "~":  # there is none
        home = os.environ["HOME"] = _make_temporary()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path(home, ".cache"))
    try:
        check_writable(cache)
    except InputError:
        cache = Path(_make_temporary())
        os.environ.setdefault("MPLCONFIGDIR", str(cache))
    return cache


def _make_temporary() -> str:
    folder = tempfile.mkdtemp(prefix="rmjax-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
