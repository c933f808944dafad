"""Uploading a run: weights, config, calibration, results and a model card, as one commit."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ml_collections import ConfigDict

from rmjax.errors import InputError
from rmjax.evaluation.results import EVALUATIONS, RESULTS_FILE, read_results
from rmjax.experiment.checkpoints import Checkpoints
from rmjax.experiment.log import read_log
from rmjax.experiment.run import CHECKPOINTS, CONFIG_FILE
from rmjax.hub.card import write_card
from rmjax.inference.attributor import Attributor, load
from rmjax.inference.calibration import CALIBRATION_FILE, save_calibration
from rmjax.inference.exported import export
from rmjax.pretrained.addresses import Address, parse_address
from rmjax.pretrained.files import WEIGHTS
from rmjax.pretrained.hub import hub_errors
from rmjax.utils.files import replace_text, write_json
from rmjax.utils.places import as_path, is_remote
from rmjax.utils.versions import own_version

# What an earlier push may have left, and would now be of other weights.
_STALE = re.compile(f"{CALIBRATION_FILE}|{EVALUATIONS}/[^/]+/{RESULTS_FILE}")


@dataclass(frozen=True)
class Pushed:
    """What became of a run.

    Attributes:
        address: by which it can be loaded.
        commit: that holds it.
        url: of that commit.
    """

    address: Address
    commit: str
    url: str


def push(
    workdir: str | Path,
    address: str,
    *,
    checkpoint: str | int = "best",
    private: bool = False,
    license: str | None = None,
    message: str | None = None,
    revision: str | None = None,
) -> Pushed:
    """Upload a run to the Hub, in one commit; the repository is made if need be.

    Of the evaluations those of the same checkpoint go with it. Of paths, such as that of
    the data, the last part alone does.

    Args:
        workdir: folder of the run.
        address: `hf:owner/name`.
        checkpoint: "best" by validation loss, "last", or a step.
        private: whether only its owner may see the repository.
        license: of the weights, by its name on the Hub, such as `cc-by-4.0`.
        message: of the commit.
        revision: the branch, made if need be; None for the main one.

    Raises:
        InputError: there is no such run, or it is not trained to its end, no token, no
            permission, a repository that is public and was to be private, or the Hub
            can't be reached.
    """
    wanted = parse_address(address)
    if wanted.revision:
        raise InputError(f"{wanted}: give the branch as --revision {wanted.revision}")
    target = parse_address(f"{wanted}@{revision}") if revision else wanted
    _check_token(target)
    workdir = as_path(workdir)
    model = load(workdir, checkpoint=checkpoint, num_devices=1)
    _check_finished(workdir, model.config)
    results = [
        read_results(file.parent)
        for file in sorted(workdir.glob(f"{EVALUATIONS}/*/{RESULTS_FILE}"))
    ]
    results = [r for r in results if r["run"]["checkpoint"] == model.checkpoint]
    with TemporaryDirectory(prefix="rmjax-") as folder:
        write_repository(Path(folder), model, results, wanted.repo, license)
        message = message or f"Run of rmjax {own_version()}, step {model.checkpoint}"
        return _upload(Path(folder), target, private, message)


def write_repository(
    folder: Path,
    model: Attributor,
    evaluations: Sequence[dict],
    repo: str,
    license: str | None = None,
) -> None:
    """Write the files of a run as they are to lie on the Hub; see `push`.

    Raises:
        InputError: the folder can't be written to.
    """
    model = _portable(model)
    evaluations = [_without_images(without_paths(results)) for results in evaluations]
    export(model, folder / WEIGHTS)
    write_json(folder / CONFIG_FILE, model.config.to_dict())
    if model.calibration.images:
        save_calibration(folder, model.checkpoint, model.calibration)
    for results in evaluations:
        place = folder / EVALUATIONS / results["evaluation"]["name"]
        place.mkdir(parents=True)
        write_json(place / RESULTS_FILE, results)
    replace_text(folder / "README.md", write_card(model, evaluations, repo, license))


def _portable(model: Attributor) -> Attributor:
    """Return a network that names no path of this machine."""
    return replace(
        model,
        config=ConfigDict(without_paths(model.config.to_dict())),
        provenance=without_paths(model.provenance),
        features=without_paths(model.features),
        extractor=_portable(model.extractor) if model.extractor else None,
    )


def without_paths(value: Any) -> Any:
    """Return what JSON can hold with the last part alone of each path and address."""
    if isinstance(value, dict):
        return {key: without_paths(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(without_paths, value))
    if isinstance(value, str):
        path = Path(value)
        absolute = path.is_absolute() or value.startswith("~") or is_remote(value)
        if absolute or ".." in path.parts:
            return path.name
    return value


def _without_images(results: dict) -> dict:
    """Leave out of results which images were mistaken: they are not uploaded."""
    words = shlex.split(results["evaluation"]["command"])
    command = shlex.join(without_paths(words))
    evaluation = results["evaluation"] | {"command": command}
    return results | {"evaluation": evaluation, "mistakes": []}


def _check_token(address: Address) -> None:
    with hub_errors(address):
        from huggingface_hub import get_token

        if get_token() is None:
            raise InputError(
                f"{address}: no token; log in with `hf auth login`, or set HF_TOKEN"
            )


def _check_finished(workdir: Path, config: ConfigDict) -> None:
    rows = [row for row in read_log(workdir) if row["kind"] == "train"]
    if not rows:  # an exported run, one that was converted, or a fit
        return
    checkpoints = Checkpoints(workdir / CHECKPOINTS, read_only=True)
    last = max(checkpoints.steps())
    stale = checkpoints.progress(last).get("stale", 0)
    ended = rows[-1]["epoch"] >= config.num_epochs or stale >= config.patience
    if not ended or checkpoints.is_pending(last):
        raise InputError(
            f"{workdir}: trained for {rows[-1]['epoch']:g} of {config.num_epochs} epochs; "
            "finish it with the same `rmjax train`, then push it"
        )


def _upload(folder: Path, target: Address, private: bool, message: str) -> Pushed:
    """Put the files of a folder into a repository, as one commit."""
    repo, branch = target.repo, target.revision
    with hub_errors(target):
        # Not upload_folder, which may take several commits.
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

        api = HfApi(library_name="rmjax", library_version=own_version())
        api.create_repo(repo, private=private or None, exist_ok=True)
        if branch:
            api.create_branch(repo, branch=branch, exist_ok=True)
        there = api.model_info(repo, revision=branch)
        if private and not there.private:
            raise InputError(
                f"{target}: this repository is public; make it private in its settings "
                "first, or leave out --private"
            )
        files = {
            path.relative_to(folder).as_posix(): path
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        old = (file.rfilename for file in there.siblings or ())
        stale = [name for name in old if _STALE.fullmatch(name) and name not in files]
        added = [CommitOperationAdd(name, path) for name, path in files.items()]
        commit = api.create_commit(
            repo,
            [*added, *map(CommitOperationDelete, stale)],
            commit_message=message,
            revision=branch,
        )
    return Pushed(target, commit.oid, commit.commit_url)
