"""The `rmjax plan` command: what a training would need elsewhere."""

import argparse
from functools import partial

from rmjax.cli.bench import add_json, show
from rmjax.cli.options import Add, names


def add_plan(add: Add) -> None:
    """Add the command."""
    plan = add(
        "plan",
        help="estimate speed, memory, hours and cost of a training on H100 and TPU v5e",
        epilog="Any key of the config can be changed, such as "
        "--config.batch_size=512 --config.model.dtype=bfloat16.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    plan.add_argument(
        "--config", default="repmix", help="name of a shipped config, or a Python file"
    )
    plan.add_argument("--sources", type=int, default=8, help="classes")
    plan.add_argument(
        "--images", type=int, default=1_056_000, help="of training; Attribution88's"
    )
    plan.add_argument("--epochs", type=int, default=30, help="passes over them")
    plan.add_argument("--machines", type=names, default=(), help="A,B; () is all")
    plan.add_argument(
        "--price", type=float, help="US dollars a chip and hour, for all of them"
    )
    add_json(plan)
    plan.set_defaults(run=_plan)


def _plan(args: argparse.Namespace, changes: list[str]) -> None:
    show(args.json, partial(_estimate, args, changes))


def _estimate(args: argparse.Namespace, changes: list[str]) -> tuple[dict, str]:
    from rmjax.bench.plan import MACHINES, format_plan, plan_training
    from rmjax.experiment.config import load_config

    plan = plan_training(
        load_config(args.config, changes),
        num_sources=args.sources,
        images=args.images,
        epochs=args.epochs,
        machines=args.machines or tuple(MACHINES),
        price=args.price,
    )
    return plan, format_plan(plan)
