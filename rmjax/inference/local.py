"""Runs as folders of their own, to be written to: of files and of the Hub's."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rmjax.errors import InputError
from rmjax.experiment.run import load_facts
from rmjax.inference.calibration import save_calibration
from rmjax.inference.exported import read_exported
from rmjax.pretrained.addresses import is_address, parse_address
from rmjax.pretrained.convert import check_absent, convert, new_run, write_run
from rmjax.pretrained.files import is_exported, weights_in
from rmjax.pretrained.hub import Snapshot, download
from rmjax.pretrained.weights import Weights
from rmjax.utils.places import local_path

logger = logging.getLogger(__name__)

COPIES = Path("runs")  # where working copies of runs on the Hub are made
EXTRACTOR = "extractor"  # folder in a head's run: the network that makes its features


def make_run(
    source: str | Path,
    out: str | Path,
    *,
    layout: str = "auto",
    sources: Sequence[str] = (),
    changes: Sequence[str] = (),
) -> Weights:
    """Write a network as the folder of a run, whole or not at all.

    Of a run that `export` or `push` wrote, it has the sources, the calibration and the
    step; other weights are converted, see `rmjax.pretrained.convert.convert`.

    Args:
        source: a file or folder of weights, or an address `hf:owner/name` on the Hub;
            then its provenance says which, and the commit.
        out: the folder to make.
        layout: as for `convert`, of other weights.
        sources: as for `convert`, of other weights.
        changes: as for `convert`.

    Raises:
        InputError: `out` exists or can't be written, the source can't be read or
            fetched, is not what it should be, or the changes are to another network.
    """
    check_absent(local_path(out))
    origin: dict[str, str] = {}
    if is_address(source):
        snapshot = download(source)
        source, origin = snapshot.folder, snapshot.provenance
    source = local_path(source)
    file = weights_in(source) or source
    if is_exported(file) and layout == "auto" and not sources:
        return _unpack(file, Path(out), changes, origin)
    return convert(
        source, out, layout=layout, sources=sources, changes=changes, origin=origin
    )


def _unpack(
    file: Path, out: Path, changes: Sequence[str], origin: dict[str, str]
) -> Weights:
    """Write an exported run as a folder; of a head, its network as a folder in that."""
    with new_run(out) as folder:
        return _write(folder, out.resolve(), read_exported(file), changes, origin)


def _write(
    folder: Path,
    place: Path,
    fields: dict[str, Any],
    changes: Sequence[str] = (),
    origin: Mapping[str, str] = MappingProxyType({}),
) -> Weights:
    """Write the fields of a network to a folder, which will lie at `place`."""
    step, features = fields["checkpoint"], fields["features"]
    if features:
        _write(folder / EXTRACTOR, place / EXTRACTOR, fields["extractor"])
        features = features | {"weights": str(place / EXTRACTOR)}
    weights = Weights(
        variables=fields["variables"],
        config=fields["config"],
        source_names=fields["source_names"],
        provenance={**(fields["provenance"] or {}), **origin},
    )
    training = fields["training"]
    write_run(folder, weights, changes, step=step, training=training, features=features)
    if fields["calibration"].images:
        save_calibration(folder, step, fields["calibration"])
    return weights


def working_copy(address: str) -> Path:
    """Return the folder of a copy of a run on the Hub, in `runs`; make it if need be.

    Args:
        address: `hf:owner/name`.

    Raises:
        InputError: it can't be fetched or written, or the copy that is there is of
            another commit.
    """
    folder = COPIES / parse_address(address).repo.replace("/", "--")
    if folder.exists():
        _check_copy(folder, download(address))
    else:
        make_run(address, folder)
    logger.info("working copy of %s: %s", address, folder)
    return folder


def _check_copy(folder: Path, snapshot: Snapshot) -> None:
    commit = (load_facts(folder)["provenance"] or {}).get("commit")
    if commit != snapshot.provenance["commit"]:
        raise InputError(
            f"{folder} is of commit {commit}, {snapshot.provenance['hub']} is at "
            f"{snapshot.provenance['commit']}: give {folder} as --workdir, or remove it"
        )
