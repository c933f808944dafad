"""The `rmjax report` command: an evaluation as a page, or several compared."""

import argparse

from rmjax.cli.options import Add
from rmjax.errors import InputError


def add_report(add: Add) -> None:
    """Add the command `report` to a parser."""
    parser = add(
        "report", help="draw an evaluation as one HTML page, or compare several runs"
    )
    parser.add_argument(
        "--workdir",
        required=True,
        nargs="+",
        help="folder of the run; of several, each is compared with the first",
    )
    parser.add_argument(
        "--evaluation", help="which of the run's (default: full, or the only one)"
    )
    parser.add_argument(
        "--out",
        help="folder to write to (default: that of the evaluation; needed to compare)",
    )
    parser.add_argument(
        "--audit",
        help="audit.json of the data set (default: audit/DATASET/audit.json, if there)",
    )
    parser.set_defaults(run=_report)


def _report(args: argparse.Namespace, changes: list[str]) -> None:
    from rmjax.report.comparison import write_comparison
    from rmjax.report.page import write_report

    options = {"evaluation": args.evaluation, "out": args.out}
    if len(args.workdir) == 1:
        paths = write_report(args.workdir[0], audit=args.audit, **options)
    elif args.out is None or args.audit is not None:
        raise InputError("to compare runs give --out DIR, and no --audit")
    else:
        paths = write_comparison(args.workdir, **options)
    for kind, path in paths.items():
        print(f"{kind + ':':<11} {path}")
