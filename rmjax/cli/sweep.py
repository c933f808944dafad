"""The `rmjax sweep` command: many runs of one config, and one table of them."""

import os
import shlex
from collections.abc import Mapping
from typing import Annotated

from rmjax.cli.options import (
    ConfigName,
    Count,
    Fraction,
    NewFolder,
    NewPlace,
    RunDataDir,
)
from rmjax.errors import InputError


def run_grid(
    *,
    config: ConfigName,
    workdir: Annotated[NewPlace, "folder of the sweep"],
    grid: str | None = None,
    seeds: Count = 1,
    reference: str = "",
    suite: str = "clean",
    jobs: Count = 1,
    shard: Fraction | None = None,
    cache_dir: NewFolder | None = None,
    dry_run: bool = False,
    data_dir: RunDataDir = None,
    changes: list[str],
) -> int:
    """Train and evaluate every cell of a grid by several seeds; compare them.

    The grid is words of KEY=VALUE,VALUE,...; every combination of their values is a
    cell:

      rmjax sweep --config attribution_mini --seeds 5 --workdir sweeps/level \\
          --grid "mix.name=repmix,pairs mix.level=0,3,5"

    trains 6 cells with seeds 0 to 4. Commas and blanks in brackets or quotes divide
    nothing: data.sources=('real','dcgan'),('real','cips') are two values. A word
    without '=' names a grid: level (mix.level 0 to 6), members (mix.members 1 to 4),
    beta (mix.beta 0.1, 0.4, 1), mixing (14 ways), method (RepMix and 10 earlier
    methods; 4 more where runs/clip and runs/dinov2 are), loss (compound, ungated, attribution), embedding (its dimensions, 64 to
    512), input (rgb, residual, logdct), corruptions (0, 1, 3, 7, 15 kinds in training).
    method=plain,frank_ridge takes these two of method.

    What is done is not run again, and what was stopped resumes: run the same
    command again. Details: docs/sweeps.md.

    Args:
        grid: what to vary, see above (default: GRID of the config's file)
        seeds: of each cell
        reference: the cell to compare with, such as mix.name=none,mix.level=5 (default:
            the first)
        suite: as for rmjax evaluate
        jobs: runs at once, each with its share of the GPUs or TPU chips
        shard: K/N: do the Kth run in N, from 0/N on (default: of a Slurm array job its
            part, else all)
        cache_dir: keep corrupted images there, which all runs are tested on
        dry_run: list cells and how far they are
        changes: --config.KEY=VALUE changes all cells.

    Returns:
        0 all is done or at work in another command, 1 a run failed, 2 wrong input, 75
        stopped by SIGTERM, 130 interrupted.
    """
    import jax

    # The runs are other processes; this one is to leave accelerators to them.
    jax.config.update("jax_platforms", "cpu")
    from rmjax.experiment.config import load_grid
    from rmjax.sweep.devices import shares, threads
    from rmjax.sweep.grid import GRIDS
    from rmjax.sweep.plan import plan_sweep
    from rmjax.sweep.runs import Sweep
    from rmjax.sweep.sweep import describe_plan, run_sweep
    from rmjax.utils.places import path_of
    from rmjax.utils.processes import cores

    grid = load_grid(config) if grid is None else grid
    if grid is None:
        raise InputError(
            f"no grid: give --grid 'KEY=VALUE,VALUE,...' or one of {', '.join(GRIDS)}, "
            f"or define GRID in {config}"
        )
    shard = shard or slurm_shard(os.environ)
    common = threads(jobs, cores(), os.environ)
    slots = [part | common for part in shares(jobs, os.environ)]
    # The command without what says how and where alone it is run.
    words = ["rmjax", "sweep", "--config", config, "--grid", grid]
    words += ["--seeds", f"{seeds}", "--suite", suite]
    words += ["--reference", reference] if reference else []
    words += ["--workdir", workdir]
    words += ["--data-dir", data_dir] if data_dir else []
    sweep = plan_sweep(
        Sweep(
            folder=path_of(workdir),
            config=config,
            grid=grid,
            seeds=seeds,
            changes=changes,
            reference=reference,
            suite=suite,
            command=shlex.join([*words, *changes]),
            data_dir=data_dir,
            cache_dir=cache_dir,
        )
    )
    if dry_run:
        print(describe_plan(sweep))
        return 0
    return 1 if run_sweep(sweep, slots, shard) else 0


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
