"""The commands of a run: train, evaluate, report, plan."""

import shlex
from typing import Annotated

from rmjax.cli.options import (
    ConfigName,
    CopiedRun,
    Hosts,
    JsonFile,
    Names,
    NewFolder,
    NewPlace,
    RunDataDir,
    Share,
    find_run,
)
from rmjax.errors import InputError


def train_run(
    *,
    config: ConfigName,
    workdir: Annotated[NewPlace, "folder of the run"],
    data_dir: RunDataDir = None,
    hosts: Hosts,
    changes: list[str],
) -> None:
    """Train a network, or resume an earlier run.

    Args:
        changes: Any key of the config can be changed with --config.KEY=VALUE, such as
            --config.mix.name=none --config.seed=1.
    """
    from rmjax.experiment.config import load_config
    from rmjax.training.train import train

    hosts.join(preemptible=True)
    loaded = load_config(config, changes)
    if data_dir:
        loaded.data.dir = data_dir
    train(loaded, workdir)
    hosts.say(f"trained: {workdir}")


def evaluate_run(
    *,
    workdir: CopiedRun,
    split: str = "test",
    semantics: Names = (),
    suite: str = "clean",
    fpr: tuple[Share, ...] = (),
    reject_fpr: Share | None = None,
    bootstrap: int = 1000,
    cache_dir: NewFolder | None = None,
    checkpoint: str = "best",
    data_dir: RunDataDir = None,
    hosts: Hosts,
    changes: list[str],
) -> None:
    """Measure a run; write results.json and pictures.

    Args:
        split: train, val, test or all
        semantics: on these semantics alone, A,B (default: the config's seen and unseen)
        suite: what the images suffer first: clean, seen or unseen (the ImageNet-C kinds
            trained with or kept), resharing, full (all of these), or a list such as
            seen:1,fog:3,jpeg:75,flip, where seen:1 are the seen kinds at severity 1
        fpr: choose the probability from which on an image is called synthetic so that
            these shares of real validation images are (default: 0.05,0.01)
        reject_fpr: choose the probability below which the source is called unknown so
            that this share of known validation images is (default: 0.05)
        bootstrap: draws for the 95 % intervals
        cache_dir: keep corrupted images there, for the next evaluation
        checkpoint: best, last or a step
        changes: The keys of the config that no figure depends on can be changed with
            --config.KEY=VALUE, such as --config.data.workers=2
            --config.eval_batch_size=64.
    """
    from rmjax.evaluation.calibration import FPRS, REJECT_FPR
    from rmjax.evaluation.evaluate import evaluate
    from rmjax.evaluation.results import format_results

    folder = find_run(workdir, hosts.distributed)
    hosts.join()
    results = evaluate(
        folder,
        split=split,
        semantics=semantics,
        suite=suite,
        checkpoint=checkpoint,
        data_dir=data_dir,
        cache_dir=cache_dir,
        fprs=tuple(dict.fromkeys(fpr)) or FPRS,
        reject_fpr=reject_fpr or REJECT_FPR,
        draws=bootstrap,
        changes=changes,
    )
    if not results:  # another process of the job has them
        return
    print(format_results(results))
    print(f"\nresults: {results['folder']}/results.json")
    name = results["evaluation"]["name"]
    chosen = [] if name == "full" else ["--evaluation", name]
    command = shlex.join(["rmjax", "report", "--workdir", str(folder), *chosen])
    print(f"report:  {command}")


def report_runs(
    *,
    workdir: list[str],
    evaluation: str | None = None,
    out: NewPlace | None = None,
    audit: str | None = None,
) -> None:
    """Draw an evaluation as one HTML page, or compare several runs.

    Args:
        workdir: folder of the run, or hf:OWNER/NAME, as for rmjax evaluate; of several,
            each is compared with the first
        evaluation: which of the run's (default: full, or the only one)
        out: folder to write to (default: that of the evaluation; needed to compare)
        audit: audit.json of the data set (default: audit/DATASET/audit.json, if there)
    """
    from rmjax.report.comparison import write_comparison
    from rmjax.report.page import write_report

    folders = [find_run(run) for run in workdir]
    if len(folders) == 1:
        paths = write_report(folders[0], audit=audit, evaluation=evaluation, out=out)
    elif out is None or audit is not None:
        raise InputError("to compare runs give --out DIR, and no --audit")
    else:
        paths = write_comparison(folders, evaluation=evaluation, out=out)
    for kind, path in paths.items():
        print(f"{kind + ':':<11} {path}")


def plan_run(
    *,
    config: ConfigName = "repmix",
    sources: int = 8,
    images: int = 1_056_000,
    epochs: int = 30,
    machines: Names = (),
    price: float | None = None,
    compile: str | None = None,
    largest: bool = False,
    save: NewFolder | None = None,
    json: JsonFile = None,
    changes: list[str],
) -> None:
    """Estimate speed, memory, hours and cost of a training on GPUs and TPUs.

    With --compile, the training's own step is compiled for a machine that need not be
    here, by its own compiler: libtpu for TPUs, jax's CUDA plugin for GPUs. That takes a
    few minutes, and says what is exact: the memory, whether it fits, the exchanges
    between chips, and, for TPUs, the cycles of every part of the network.

    Args:
        sources: classes
        images: of training; Attribution88's
        epochs: passes over them
        machines: A,B, such as h100,v5e:2x4 (default: h100,h100x8,v5e-8,v5e-64)
        price: US dollars a chip and hour, for all of them
        compile: a machine: h100, h100:8, v5e:2x4, v5p:2x2x1, v6e:8x8 ...
        largest: with --compile, find the largest batch that fits; takes some more
            compilations, a few minutes each
        save: with --compile, a folder to keep the compiled programs in, as text
        changes: Any key of the config can be changed, such as --config.batch_size=512
            --config.model.dtype=bfloat16.
    """
    from rmjax.bench.plan import MACHINES, format_plan, plan_training
    from rmjax.cli.bench import show
    from rmjax.experiment.config import load_config

    loaded = load_config(config, changes)
    numbers = {"num_sources": sources, "images": images, "epochs": epochs}
    if compile is None:
        if largest or save:
            raise InputError("--largest and --save are for --compile MACHINE: add it")
        named = machines or tuple(MACHINES)
        plan = plan_training(loaded, **numbers, machines=named, price=price)
        show(plan, format_plan(plan), json)
        return
    if machines:
        raise InputError("--compile names its machine: leave out --machines")
    from rmjax.bench.compile import compile_training, format_compiled
    from rmjax.bench.topology import compile_only

    compile_only()
    plan = compile_training(
        loaded, machine=compile, **numbers, price=price, largest=largest, save=save
    )
    show(plan, format_compiled(plan), json)
