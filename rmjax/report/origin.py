"""Where the figures of a report come from: commands, config, and audit of the data."""

import json
import shlex
from pathlib import Path

from rmjax.audit.report import format_audit
from rmjax.errors import InputError
from rmjax.experiment.config import flatten, load_config, shipped_configs
from rmjax.report.view import listed
from rmjax.utils.files import read_json
from rmjax.utils.places import as_path

AGAIN = "runs/again"  # stands for a new folder


def read_origin(path: Path, needed: bool = True) -> dict | None:
    """Return the object in a file; None if there is no file and none is needed."""
    if path.exists():
        return read_json(path)
    if needed:
        raise InputError(f"{path} is missing")
    return None


def find_audit(results: dict, path: str | Path | None) -> dict | None:
    """Return what is to be shown of an audit.

    Args:
        results: of an evaluation.
        path: of `audit.json`; None: where `rmjax audit` puts it, if there.

    Returns:
        `text`, None if it is of another data set, and `about`, which it is of; None if
        there is no audit.

    Raises:
        InputError: the file given is missing, no audit, or of another data set.
    """
    name = results["data"]["name"]
    file = as_path(path or Path("audit") / name / "audit.json")
    audit = read_origin(file, needed=path is not None)
    if audit is None:
        return None
    try:
        of, known = audit["dataset"], list(audit["sources"])
        about = f"{of}, split {', '.join(audit['splits'])}"
        text = format_audit(audit)
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{file} is not what rmjax audit writes") from error
    # The folder may lie elsewhere now: its name and version tell.
    if Path(of).parts[-2:] != Path(results["data"]["directory"]).parts[-2:]:
        other = f"{file} is of another data set: {of}"
        if path is not None:
            raise InputError(f"{other}, not {results['data']['directory']}")
        return {"text": None, "about": other}
    missing = [source for source in results["sources"] if source not in known]
    if missing:
        about += f"; without {listed(missing)}"
    return {"text": text, "about": about}


def commands(results: dict) -> dict[str, str]:
    """Return commands ready for a shell: `report`, and `audit` and `prepare` the data."""
    run, data = results["run"], results["run"]["config"]["data"]
    report = ["rmjax", "report", "--workdir", run["workdir"]]
    where = ["--data-dir", data.get("dir", "data")]
    name = results["data"]["name"]
    return {
        "report": shlex.join([*report, "--evaluation", results["evaluation"]["name"]]),
        "audit": shlex.join(["rmjax", "audit", name, *where]),
        "prepare": shlex.join(["rmjax", "prepare", name.split("/")[0], *where]),
    }


def train_command(run: dict) -> str | None:
    """Return the command that trains such a run, None if no config has its keys.

    It names the shipped config that is nearest, and changes its other keys; the run
    is a new one, as one that is there is gone on with.
    """
    wanted = leaves(run["config"])
    candidates = []
    for name in shipped_configs():
        own = json.loads(json.dumps(flatten(load_config(name))))
        if set(wanted) <= set(own):
            changes = {k: v for k, v in wanted.items() if own[k] != v}
            candidates.append((len(changes), name, changes))
    if not candidates:
        return None
    _, name, changes = min(candidates, key=lambda item: item[:2])
    words = ["rmjax", "train", "--config", name, "--workdir", AGAIN]
    for key, value in changes.items():
        text = tuple(value) if isinstance(value, list) else value
        words.append(f"--config.{key}={text}")
    return shlex.join(words)


def leaves(config: dict, prefix: str = "") -> dict[str, object]:
    """Return the values of a config by dotted key."""
    flat: dict[str, object] = {}
    for key, value in config.items():
        inside = isinstance(value, dict)
        flat |= leaves(value, f"{prefix}{key}.") if inside else {prefix + key: value}
    return flat
