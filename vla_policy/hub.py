"""Checkpoints on the Hugging Face Hub: `hf://owner/name`, or `hf://owner/name@revision` for one state of it for good.

Only a checkpoint's own files are fetched, weights as safetensors and JSON: nothing that could be executed.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from vla_policy.pretrained_source import one_line

HUB = "hf://"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "language/*.json", "provenance.json", "COMPLETE")
NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*")
CACHED = re.compile(r"models--(?P<repo>.+)/snapshots/(?P<commit>[0-9a-f]{40})")


class HubError(ValueError):
    """What the Hub does not give or take; the message says what was asked and what to do."""


def split_name(name: str) -> tuple[str, str | None]:
    """Repository and revision of `hf://owner/name@revision`; the revision is None where none is named.

    Raises:
        HubError: it is no such name.
    """
    repo, at, revision = name.removeprefix(HUB).partition("@")
    if not NAME.fullmatch(repo) or (at and not revision):
        raise HubError(f"{name!r}: expected {HUB}owner/name or {HUB}owner/name@revision")
    return repo, revision or None


def fetch(name: str) -> Path:
    """The folder in the Hub's cache of a checkpoint by its `hf://` name. Without a network, what was fetched before.

    Raises:
        HubError: there is no such repository or revision, or it cannot be reached and is not in the cache.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    repo, revision = split_name(name)
    try:
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=list(FILES), endpoint=endpoint()))
    except LocalEntryNotFoundError:
        raise HubError(
            f"{name}: the Hub cannot be reached, and the cache has no copy; fetch it once with a network, or copy the "
            "checkpoint's folder and name that"
        ) from None
    except RevisionNotFoundError:
        raise HubError(f"{name}: has no revision {revision!r}; name a branch, a tag or a commit") from None
    except RepositoryNotFoundError:
        raise HubError(
            f"{name}: no such repository, or a private one; check the name, or log in: hf auth login"
        ) from None
    except Exception as error:  # noqa: BLE001 - the client's own kinds, of several HTTP libraries
        raise HubError(f"{name}: not fetched ({one_line(error)})") from None
    if not (folder / "COMPLETE").is_file():
        raise HubError(f"{name}: holds no checkpoint of vla_policy, for it has no file COMPLETE; name another")
    return folder


def from_cache(folder: Path) -> Path | None:
    """The snapshot to take of a repository's folder in a Hub cache, `models--owner--name`; None of any other folder.

    Raises:
        HubError: it holds several, and no branch `main` that says which.
    """
    snapshots = folder / "snapshots"
    if not folder.name.startswith("models--") or not snapshots.is_dir():
        return None
    main, found = folder / "refs" / "main", sorted(path for path in snapshots.iterdir() if path.is_dir())
    if main.is_file() and (chosen := snapshots / main.read_bytes().decode("ascii", "replace").strip()) in found:
        return chosen
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise HubError(f"{folder}: holds the snapshots {names} and no branch main; name one, as {folder}/snapshots/…")
    return found[0]


def pinned_name(path: Path) -> str | None:
    """`hf://owner/name@commit` of a folder in a Hub cache; None of any other."""
    found = CACHED.search(path.as_posix())
    return f"{HUB}{found['repo'].replace('--', '/', 1)}@{found['commit']}" if found else None


def endpoint() -> str | None:
    """Where the Hub is; None for its usual address."""
    return os.environ.get("HF_ENDPOINT") or None
