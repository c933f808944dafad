"""The Hugging Face Hub: an address such as `hf:owner/name` becomes a local folder.

`huggingface_hub` (`pip install 'rmjax[hub]'`) fetches, with its cache, its token and its
environment variables: HF_HOME, HF_TOKEN, HF_HUB_OFFLINE and the others.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmjax.errors import InputError
from rmjax.pretrained.addresses import Address, parse_address
from rmjax.pretrained.files import CONFIG, FORMATS, INDEX, PREPROCESSOR, file_hash

# How the cache names its files: by their SHA-256, or by git's SHA-1 of small ones.
_STATED = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")


@dataclass(frozen=True)
class Snapshot:
    """A repository as it was at one commit.

    Attributes:
        folder: where its files lie, in the cache of `huggingface_hub`.
        provenance: its address, `hub`, and its `commit`.
    """

    folder: Path
    provenance: dict[str, str]


def download(address: str | Path) -> Snapshot:
    """Fetch the config and the weights of a repository, those that are not here yet.

    Of several formats of the weights one alone is fetched: `model.safetensors`, else the
    files that its index names, else `pytorch_model.bin`, else those of its index. What
    is fetched, or was, is compared with the hash that the Hub states. Without a
    connection the cache serves.

    Args:
        address: as for `parse_address`.

    Raises:
        InputError: no address, no such repository or revision, no permission, no
            connection and nothing in the cache, no weights, a file that is missing or
            not what the Hub states (it is then removed from the cache), or no room.
    """
    wanted = parse_address(address)
    with hub_errors(wanted):
        from huggingface_hub import HfApi

        api = HfApi()
        revision = api.resolve_revision(wanted.repo, revision=wanted.revision)
        commit = revision.resolved
        stated = _list_files(api, wanted.repo, commit)

        def fetch(name: str) -> Path:
            if name not in stated:
                raise InputError(f"{wanted}: {name} is missing there")
            path = Path(api.hf_hub_download(wanted.repo, name, revision=commit))
            _check(path, stated[name], f"{wanted}: {name}")
            return path

        weights = next((n for n in FORMATS if n in stated or n + INDEX in stated), None)
        if weights is None:
            raise InputError(
                f"{wanted}: holds no weights, neither {' nor '.join(FORMATS)}"
            )
        for name in (n for n in (CONFIG, PREPROCESSOR) if n in stated):
            fetch(name)
        if weights in stated:
            file = fetch(weights)
        else:
            file = fetch(weights + INDEX)
            for name in _read_index(file, f"{wanted}: {file.name}"):
                fetch(name)
    return Snapshot(file.parent, {"hub": str(wanted), "commit": commit})


@contextmanager
def hub_errors(address: Address) -> Iterator[None]:
    """Say in one line what `huggingface_hub` raises within the block.

    Raises:
        InputError: it raised something, or is not installed.
    """
    try:
        yield
    except InputError:
        raise
    except ImportError as error:
        raise InputError(
            f"{address}: the Hub needs huggingface_hub; pip install 'rmjax[hub]'"
        ) from error
    except Exception as error:  # of httpx, hf_xet, the system and its own
        raise InputError(f"{address}: {_reason(error, address)}") from error


def _reason(error: Exception, address: Address) -> str:
    from huggingface_hub import constants, errors, get_token

    log_in = "log in with `hf auth login`, or set HF_TOKEN"
    said = " ".join(str(error).split())[:300] or type(error).__name__
    if isinstance(error, errors.GatedRepoError):
        page = f"{constants.ENDPOINT}/{address.repo}"
        return f"its owner wants terms to be accepted: do so at {page}, and {log_in}"
    if isinstance(error, errors.RepositoryNotFoundError):
        known = "your token does not open" if get_token() else "needs a token"
        return f"no such repository, or a private one, which {known}: {log_in}"
    if isinstance(error, errors.RevisionNotFoundError):
        return "no such branch, tag or commit there"
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        if status in (401, 403):
            return f"no permission ({status}): give a token that has it; {log_in}"
        return f"the Hub answers {status} ({error.server_message or said})"
    if constants.is_offline_mode():
        return "not in the cache, and HF_HUB_OFFLINE is set: unset it to fetch it"
    unreachable = errors.RevisionResolutionError, errors.LocalEntryNotFoundError
    if isinstance(error, (*unreachable, errors.HTTPError)):
        cause = " ".join(str(error.__cause__ or error).split())
        return f"{constants.ENDPOINT} can't be reached ({cause}); try again"
    if isinstance(error, OSError) and error.strerror:
        where = error.filename or constants.HF_HUB_CACHE
        return f"can't write to {where}: {error.strerror}"
    return said


def _list_files(api: Any, repo: str, commit: str) -> dict[str, str]:
    """Return the hash that the Hub states of each file; offline, of those at hand."""
    from huggingface_hub import errors, scan_cache_dir

    try:
        # Not list_repo_tree, which tries for 20 s where there is no network.
        files = api.model_info(repo, revision=commit, files_metadata=True).siblings
        return {f.rfilename: f.lfs.sha256 if f.lfs else f.blob_id for f in files}
    except errors.HfHubHTTPError as error:
        if error.response.status_code < 500:
            raise
        unreachable: Exception = error
    except (errors.HTTPError, errors.OfflineModeIsEnabled) as error:
        unreachable = error
    try:
        repos = scan_cache_dir().repos
    except errors.CacheNotFound:
        raise unreachable from None
    for found in (r for r in repos if (r.repo_id, r.repo_type) == (repo, "model")):
        for revision in (r for r in found.revisions if r.commit_hash == commit):
            return {
                file.file_path.relative_to(revision.snapshot_path).as_posix(): (
                    file.blob_path.name
                )
                for file in revision.files
            }
    raise unreachable


def _check(path: Path, stated: str, what: str) -> None:
    """Compare a file with its stated hash, and remove it where it is another."""
    if not _STATED.fullmatch(stated):  # of a cache on a file system without links
        return
    if len(stated) == 64:
        kind, found = "SHA-256", file_hash(path)
    else:
        data = path.read_bytes()
        blob = b"blob %d\0" % len(data) + data
        kind, found = (
            "git's SHA-1",
            hashlib.sha1(blob, usedforsecurity=False).hexdigest(),
        )
    if found != stated:
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        raise InputError(
            f"{what} is not what the Hub states: {kind} {found[:12]}..., stated "
            f"{stated[:12]}...; it was removed from the cache: run the same again"
        )


def _read_index(path: Path, what: str) -> list[str]:
    """Return the names of the files that an index names."""
    try:
        names = {*json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()}
        return sorted(names)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{what}: no index of weights ({error})") from error
