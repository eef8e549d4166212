"""`vla push`: a checkpoint, its model card and its results onto the Hugging Face Hub."""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from configs.options import parse, plain_parser
from training.lock import hold_file

if TYPE_CHECKING:
    from eval.results import Results

CARD, RESULTS = "README.md", "results.json"
LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]*")  # how the Hub writes them


def push(arguments: list[str]) -> int:
    parser = plain_parser("push", tasks=False)
    parser.add_argument("checkpoint", type=str, help="checkpoint folder, or the name of a policy that ships")
    parser.add_argument("repo", type=str, help="owner/name on the Hub; made if it is not there")
    parser.add_argument("--results", type=str, help="results.json of an evaluation; that of the run if left out")
    parser.add_argument("--licence", type=str, default="mit", help="identifier, as the Hub writes them")
    parser.add_argument("--private", action="store_true", help="nobody else may see the repository, if it is made now")
    parser.add_argument("--out", type=str, help="write the files here, and publish nothing")
    parsed = parse(parser, arguments)
    from vla_policy.checkpoint import load_checkpoint, resolve_checkpoint
    from vla_policy.hub import HUB, split_name

    repo, revision = split_name(parsed.repo)
    if revision is not None:
        raise ValueError(f"{parsed.repo}: publishing makes a new revision; leave '@{revision}' out")
    if not LICENCE.fullmatch(parsed.licence):
        raise ValueError(f"--licence {parsed.licence!r}: expected an identifier such as mit or apache-2.0")
    path = resolve_checkpoint(parsed.checkpoint)
    checkpoint = load_checkpoint(path)  # before anything is published
    results = find_results(path, parsed.results)
    from eval.card import write_card

    card = write_card(checkpoint, repo, None if results is None else read_matching(results, path), parsed.licence)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(parsed.out) if parsed.out else Path(made) / "checkpoint"
        with hold_file(folder):
            if folder.exists():
                raise ValueError(f"--out {folder}: is there already; choose another place, or remove it")
            prepare(path, folder, card, results)
        if parsed.out:
            print(f"{folder}: what would be published as {HUB}{repo}")
            return 0
        commit = upload(folder, repo, private=parsed.private)
    if results is None:
        print("no evaluation was found beside the checkpoint, and the card says so; name one with --results")
    print(f"{HUB}{repo}@{commit}")
    return 0


def find_results(path: Path, given: str | None) -> Path | None:
    """The evaluation to publish: the given one, or the one in the folder of the run that the checkpoint is of."""
    if given is not None:
        return Path(given)
    places = [path.parent / "eval", path.parent.parent / "eval"]
    return next((place / RESULTS for place in places if (place / RESULTS).is_file()), None)


def read_matching(file: Path, path: Path) -> Results:
    """An evaluation of exactly these weights.

    Raises:
        ValueError: it is damaged, unfinished, or of others.
    """
    from eval.results import load_results
    from vla_policy.checkpoint import load_checkpoint, weights_digest

    results = load_results(file)
    judged = results.checkpoint
    # Evaluations from before the weights were noted have what the policy was made from.
    if judged.weights:
        same = judged.weights == weights_digest(path)
    else:
        same = judged.provenance == load_checkpoint(path).provenance
    if not same:
        raise ValueError(f"{file}: judges other weights than {path} has; evaluate these, or name another --results")
    if not results.complete:
        raise ValueError(f"{file}: the evaluation was interrupted; finish it first, with the same command")
    return results


def prepare(path: Path, folder: Path, card: str, results: Path | None) -> None:
    """Put all that is published into a folder: the checkpoint's own files, nothing that happens to lie beside them."""
    from configs.disk import whole_folder
    from vla_policy.hub import FILES

    with whole_folder(folder) as partial:
        for file in (file for pattern in FILES for file in path.glob(pattern)):
            target = partial / file.relative_to(path)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)
        if results is not None:
            shutil.copyfile(results, partial / RESULTS)
        (partial / CARD).write_text(card)


def upload(folder: Path, repo: str, *, private: bool) -> str:
    """Publish a folder; the commit.

    Raises:
        HubError: the Hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi, constants

    from vla_policy.hub import HubError, endpoint
    from vla_policy.pretrained_source import one_line

    if constants.HF_HUB_OFFLINE:
        raise HubError(f"{repo}: not published, HF_HUB_OFFLINE is set; unset it, or write the files with --out")
    api = HfApi(endpoint=endpoint())
    try:
        # Of a repository that is there, what it is stays as it is.
        api.create_repo(repo, exist_ok=True, private=private or None)
        commit = api.upload_folder(repo_id=repo, folder_path=folder, commit_message="A checkpoint of vla_policy")
    except Exception as error:  # noqa: BLE001 - the client's own kinds, of several HTTP libraries
        status = getattr(getattr(error, "response", None), "status_code", None)
        advice = "log in with a token that may write: hf auth login" if status in (401, 403) else "is there a network?"
        raise HubError(f"{repo}: not published ({one_line(error)}); {advice}") from None
    return str(commit.oid)
