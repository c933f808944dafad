"""Options of commands that several processes, on several hosts, can run together."""

import argparse


def add_distributed(parser: argparse.ArgumentParser) -> None:
    """Add them to a command."""
    group = parser.add_argument_group(
        "several processes",
        "The same command on every host, with --distributed; where JAX can't find out "
        "itself, with the three other options too.",
    )
    group.add_argument(
        "--distributed",
        action="store_true",
        help="work with other processes (on Cloud TPU, Slurm and Kubernetes: no more)",
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="of process 0")
    group.add_argument("--processes", type=int, metavar="N", help="how many there are")
    group.add_argument(
        "--process", type=int, metavar="I", help="which one this is, from 0"
    )


def join(args: argparse.Namespace, *, preemptible: bool = False) -> None:
    """Join the other processes, where the command is one of several.

    Raises:
        InputError: the options are wrong, or incomplete.
    """
    if args.distributed:
        from rmjax.experiment.hosts import connect

        connect(args.coordinator, args.processes, args.process, preemptible=preemptible)
    elif (args.coordinator, args.processes, args.process) != (None, None, None):
        from rmjax.errors import InputError

        raise InputError(
            "--coordinator, --processes and --process are for --distributed: add it"
        )


def say(args: argparse.Namespace, text: str) -> None:
    """Print a line; of several processes, the first does."""
    from rmjax.experiment.hosts import is_first

    if not args.distributed or is_first():
        print(text)
