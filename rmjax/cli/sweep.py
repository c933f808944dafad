"""The `rmjax sweep` command: many runs of one config, and one table of them."""

import argparse
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from rmjax.cli.options import Add, add_data_dir, at_least_one, fraction
from rmjax.errors import InputError

_HELP = """\
The grid is words of KEY=VALUE,VALUE,...; every combination of their values is a cell:

  rmjax sweep --config attribution_mini --seeds 5 --workdir sweeps/level \\
      --grid "mix.name=repmix,pairs mix.level=0,3,5"

trains 6 cells with seeds 0 to 4. Commas and blanks in brackets or quotes divide nothing:
data.sources=('real','dcgan'),('real','cips') are two values. A word without '=' names a
grid: level (mix.level 0 to 6), members (mix.members 1 to 4), beta (mix.beta 0.1, 0.4, 1),
mixing (14 ways), method (RepMix and 10 earlier methods), loss (compound, ungated,
attribution), embedding (its dimensions, 64 to 512), input (rgb, residual, logdct),
corruptions (0, 1, 3, 7, 15 kinds in training). method=plain,frank_ridge takes these two
of method.
--config.KEY=VALUE changes all cells.

What is done is not run again, what was stopped is gone on with: run the same command
again. Details: docs/sweeps.md. Exit status: 0 all is done or at work in another command,
1 a run failed, 2 wrong input, 75 stopped by SIGTERM, 130 interrupted."""


def add_sweep(add: Add) -> None:
    """Add the command."""
    parser = add(
        "sweep",
        help="train and evaluate every cell of a grid by several seeds; compare them",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config", required=True, help="name of a shipped config, or a Python file"
    )
    parser.add_argument("--workdir", required=True, help="folder of the sweep")
    parser.add_argument(
        "--grid", help="what to vary, see below (default: GRID of the config's file)"
    )
    parser.add_argument(
        "--seeds", type=at_least_one, default=1, help="of each cell (default: 1)"
    )
    parser.add_argument(
        "--reference",
        default="",
        help="the cell to compare with, such as mix.name=none,mix.level=5 (default: the "
        "first)",
    )
    parser.add_argument(
        "--suite", default="clean", help="as for rmjax evaluate (default: clean)"
    )
    parser.add_argument(
        "--jobs",
        type=at_least_one,
        default=1,
        help="runs at once, each with its share of the GPUs or TPU chips (default: 1)",
    )
    parser.add_argument(
        "--shard",
        type=fraction,
        help="K/N: do the Kth run in N, from 0/N on (default: of a Slurm array job its "
        "part, else all)",
    )
    parser.add_argument(
        "--cache-dir", help="keep corrupted images there, which all runs are tested on"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="list cells and how far they are"
    )
    add_data_dir(parser, None)
    parser.set_defaults(run=_sweep)


def slurm_shard(environ: Mapping[str, str]) -> tuple[int, int]:
    """Return which part of how many an array job of Slurm is; elsewhere all.

    Raises:
        InputError: the numbers of the array do not follow each other at equal steps.
    """
    name = "SLURM_ARRAY_TASK_"
    if name + "ID" not in environ:
        return 0, 1
    number, least = (int(environ[name + end]) for end in ("ID", "MIN"))
    count, step = (int(environ.get(name + end, 1)) for end in ("COUNT", "STEP"))
    shard = (number - least) // step
    if (number - least) % step or shard >= count:
        raise InputError(
            f"{name}ID={number} is none of {count} numbers from {least} on: give sbatch "
            "--array=0-N, or --shard K/N here"
        )
    return shard, count


def _sweep(args: argparse.Namespace, changes: list[str]) -> int:
    import jax

    # The runs are other processes; this one is to leave accelerators to them.
    jax.config.update("jax_platforms", "cpu")
    from rmjax.experiment.config import load_grid
    from rmjax.sweep.devices import shares, threads
    from rmjax.sweep.grid import GRIDS
    from rmjax.sweep.plan import plan_sweep
    from rmjax.sweep.runs import Sweep
    from rmjax.sweep.sweep import describe_plan, run_sweep
    from rmjax.utils.processes import cores

    grid = load_grid(args.config) if args.grid is None else args.grid
    if grid is None:
        raise InputError(
            f"no grid: give --grid 'KEY=VALUE,VALUE,...' or one of {', '.join(GRIDS)}, "
            f"or define GRID in {args.config}"
        )
    shard = args.shard or slurm_shard(os.environ)
    common = threads(args.jobs, cores(), os.environ)
    slots = [share | common for share in shares(args.jobs, os.environ)]
    sweep = plan_sweep(
        Sweep(
            folder=Path(args.workdir),
            config=args.config,
            grid=grid,
            seeds=args.seeds,
            changes=changes,
            reference=args.reference,
            suite=args.suite,
            command=_command(args, grid, changes),
            data_dir=args.data_dir,
            cache_dir=args.cache_dir,
        )
    )
    if args.dry_run:
        print(describe_plan(sweep))
        return 0
    return 1 if run_sweep(sweep, slots, shard) else 0


def _command(args: argparse.Namespace, grid: str, changes: list[str]) -> str:
    """Return the command without what says how and where alone it is run."""
    words = ["rmjax", "sweep", "--config", args.config, "--grid", grid]
    words += ["--seeds", f"{args.seeds}", "--suite", args.suite]
    if args.reference:
        words += ["--reference", args.reference]
    words += ["--workdir", args.workdir]
    if args.data_dir:
        words += ["--data-dir", args.data_dir]
    return shlex.join([*words, *changes])
