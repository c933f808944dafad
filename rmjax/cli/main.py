"""The `rmjax` command: parses arguments, calls the library, prints errors in one line."""

import argparse
import errno
import io
import logging
import os
import shlex
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from rmjax.cli.bench import add_bench
from rmjax.cli.distributed import add_distributed, join, say
from rmjax.cli.gallery import add_gallery
from rmjax.cli.images import add_attribute, add_convert, add_embed
from rmjax.cli.options import Add, add_data_dir, names
from rmjax.cli.plan import add_plan
from rmjax.cli.prepare import add_prepare
from rmjax.cli.report import add_report
from rmjax.cli.sweep import add_sweep
from rmjax.errors import InputError, Preempted, TrainingError, harmless
from rmjax.utils.cpu import choose_kernels, keep_memory

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    0 is success, 1 that some of what was given could not be read, or some runs of a
    sweep failed, and the rest is done, 2 something wrong with what the user gave, 3 a
    training that can't go on, 70 that another process of the job was lost, 75 a
    training that was asked to stop (SIGTERM), saved and should be started again, 130
    an interrupt, 141 an output that was closed early (128 and the signal's number).
    """
    parser = _parser()
    args, rest = parser.parse_known_args(arguments)
    changes = [a for a in rest if a.startswith("--config.")]
    configured = args.command in ("train", "convert", "plan", "sweep")
    if rest != changes or (changes and not configured):
        stray = next(a for a in rest if not configured or a not in changes)
        parser.error(f"unknown argument {stray} (write --config.KEY=VALUE with '=')")
    _prepare_process()
    status, message = _attempt(args, changes)
    if message:
        print(f"rmjax {args.command}: {message}", file=sys.stderr)
    if getattr(args, "distributed", False):
        from rmjax.experiment import hosts

        status = hosts.leave(status, message)
    return status


def _attempt(args: argparse.Namespace, changes: list[str]) -> tuple[int, str]:
    """Run the command; return its status and what to say of it in one line."""
    try:
        status = args.run(args, changes) or 0
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
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            where = f"can't write {error.filename}" if error.filename else "can't write"
            return 2, (
                f"error: {where}: no room left on the disk; make room, then run the "
                "same command again"
            )
        if not getattr(args, "distributed", False):
            raise
        from rmjax.experiment import hosts

        hosts.wait_for_reason(error)
        traceback.print_exc()
        return 1, f"error: {type(error).__name__}, see above"


def _prepare_process() -> None:
    # Compiled programs are kept for the next command; JAX reads this when it is loaded.
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rmjax"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("jax", "orbax", "faiss"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    # What Orbax logs there as an error, with tracebacks, it raises as well.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    # Pillow's, of images that are large but below the limit of `rmjax.data.images`.
    warnings.filterwarnings("ignore", message=r"Image size \(\d+ pixels\) exceeds")
    keep_memory()
    choose_kernels()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # files' texts are in any alphabet


def _train(args: argparse.Namespace, changes: list[str]) -> None:
    from rmjax.experiment.config import load_config
    from rmjax.training.train import train

    join(args, preemptible=True)
    config = load_config(args.config, changes)
    if args.data_dir:
        config.data.dir = args.data_dir
    train(config, args.workdir)
    say(args, f"trained: {args.workdir}")


def _evaluate(args: argparse.Namespace, changes: list[str]) -> None:
    from rmjax.evaluation.calibration import FPRS, REJECT_FPR
    from rmjax.evaluation.evaluate import evaluate
    from rmjax.evaluation.results import format_results

    join(args)
    results = evaluate(
        args.workdir,
        split=args.split,
        semantics=args.semantics,
        suite=args.suite,
        checkpoint=args.checkpoint,
        data_dir=args.data_dir,
        cache_dir=args.cache_dir,
        fprs=args.fpr or FPRS,
        reject_fpr=args.reject_fpr or REJECT_FPR,
        draws=args.bootstrap,
    )
    if not results:  # another process of the job has them
        return
    print(format_results(results))
    print(f"\nresults: {Path(results['folder']) / 'results.json'}")
    name = results["evaluation"]["name"]
    chosen = [] if name == "full" else ["--evaluation", name]
    command = shlex.join(["rmjax", "report", "--workdir", args.workdir, *chosen])
    print(f"report:  {command}")


def _preview(args: argparse.Namespace, changes: list[str]) -> None:
    from rmjax.corruptions import NAMES
    from rmjax.report.preview import preview_corruptions

    preview_corruptions(
        args.image,
        args.out,
        names=args.names or NAMES,
        size=args.size,
        seed=args.seed,
    )
    print(f"drawn: {args.out}")


def _audit(args: argparse.Namespace, changes: list[str]) -> None:
    from rmjax.audit.audit import audit
    from rmjax.audit.report import check_writable, format_audit, write_audit
    from rmjax.data.dataset import find_dataset, open_dataset

    dataset = open_dataset(find_dataset(args.data_dir, args.dataset))
    out = Path(args.out or Path("audit") / args.dataset)
    check_writable(out)
    results = audit(
        dataset,
        splits=None if args.splits == ("all",) else args.splits,
        sources=args.sources or None,
        semantics=args.semantics or None,
        folds=args.folds,
        seed=args.seed,
        max_images=args.max_images,
    )
    print(format_audit(results))
    for kind, path in write_audit(results, out).items():
        print(f"{kind + ':':<11} {path}")


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number between 0 and 1")
    return share


def _shares(text: str) -> tuple[float, ...]:
    return tuple(dict.fromkeys(_share(part) for part in text.split(",")))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rmjax", description="Attribute images to the generator that made them."
    )
    parser.add_argument(
        "--version", action="version", version=f"rmjax {version('rmjax')}"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_prepare(commands.add_parser)
    _add_train(commands.add_parser)
    _add_evaluate(commands.add_parser)
    add_report(commands.add_parser)
    add_sweep(commands.add_parser)
    _add_audit(commands.add_parser)
    _add_preview(commands.add_parser)
    add_convert(commands.add_parser)
    add_embed(commands.add_parser)
    add_attribute(commands.add_parser)
    add_gallery(commands.add_parser)
    add_bench(commands.add_parser)
    add_plan(commands.add_parser)
    return parser


def _add_train(add: Add) -> None:
    parser = add(
        "train",
        help="train a network, or go on where an earlier run stopped",
        epilog="Any key of the config can be changed with --config.KEY=VALUE, such "
        "as --config.mix.name=none --config.seed=1.",
    )
    parser.add_argument(
        "--config", required=True, help="name of a shipped config, or a Python file"
    )
    parser.add_argument("--workdir", required=True, help="folder of the run")
    add_data_dir(parser, None)
    add_distributed(parser)
    parser.set_defaults(run=_train)


def _add_evaluate(add: Add) -> None:
    parser = add("evaluate", help="measure a run; write results.json and pictures")
    parser.add_argument("--workdir", required=True, help="folder of the run")
    parser.add_argument(
        "--split", default="test", help="train, val, test or all (default: test)"
    )
    parser.add_argument(
        "--semantics",
        type=names,
        default=(),
        help="on these semantics alone, A,B (default: the config's seen and unseen)",
    )
    parser.add_argument(
        "--suite",
        default="clean",
        help="what the images suffer first: clean, seen or unseen (the ImageNet-C kinds "
        "trained with or kept), resharing, full (all of these), or a list such as "
        "seen:1,fog:3,jpeg:75,flip, where seen:1 are the seen kinds at severity 1 "
        "(default: clean)",
    )
    parser.add_argument(
        "--fpr",
        type=_shares,
        help="choose the probability from which on an image is called synthetic so that "
        "these shares of real validation images are (default: 0.05,0.01)",
    )
    parser.add_argument(
        "--reject-fpr",
        type=_share,
        help="choose the probability below which the source is called unknown so that "
        "this share of known validation images is (default: 0.05)",
    )
    parser.add_argument(
        "--bootstrap",
        type=int,
        default=1000,
        help="draws for the 95 %% intervals (default: 1000)",
    )
    parser.add_argument(
        "--cache-dir", help="keep corrupted images there, for the next evaluation"
    )
    parser.add_argument(
        "--checkpoint", default="best", help="best, last or a step (default: best)"
    )
    add_data_dir(parser, None)
    add_distributed(parser)
    parser.set_defaults(run=_evaluate)


def _add_audit(add: Add) -> None:
    parser = add("audit", help="how well file, size or scene alone tell the source")
    parser.add_argument("dataset", metavar="DATASET", help="such as image_folder/mine")
    add_data_dir(parser, "data")
    parser.add_argument("--out", help="folder of the figures (default: audit/DATASET)")
    parser.add_argument("--splits", type=names, default="all", help="A,B or all")
    parser.add_argument("--sources", type=names, help="A,B (default: all with images)")
    parser.add_argument("--semantics", type=names, help="A,B (default: all)")
    for option, default, what in (
        ("--folds", 5, "of the cross-validation"),
        ("--seed", 0, "of the choice of images, the folds and the classifiers"),
        ("--max-images", 20_000, "of more, so many, all sources alike"),
    ):
        parser.add_argument(
            option, type=int, default=default, help=f"{what} (default: {default})"
        )
    parser.set_defaults(run=_audit)


def _add_preview(add: Add) -> None:
    parser = add("preview", help="draw what is done to images")
    what = parser.add_subparsers(dest="what", required=True, metavar="WHAT")
    sheet = what.add_parser(
        "corruptions", help="an image under each ImageNet-C corruption and severity"
    )
    sheet.add_argument("image", metavar="IMAGE", help="its middle is shown")
    sheet.add_argument(
        "--out",
        default="corruptions.png",
        help="the PNG to write (default: corruptions.png)",
    )
    sheet.add_argument(
        "--names", type=names, default=(), help="some kinds, A,B (default: all 19)"
    )
    sheet.add_argument(
        "--size",
        type=int,
        default=224,
        help="side in pixels to corrupt it at (default: 224)",
    )
    sheet.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    sheet.set_defaults(run=_preview)
