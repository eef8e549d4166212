"""Publishing and fetching, against a stand-in of the Hub's HTTP API that the real client talks to."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import huggingface_hub
import pytest
import yaml

from eval.results import CheckpointInfo, EpisodeResult, Results, TaskResult, save_results, summarise_condition
from vla_policy.checkpoint import SHIPPED, load_checkpoint, resolve_checkpoint, weights_digest
from vla_policy.cli import main
from vla_policy.hub import HubError, from_cache, pinned_name, split_name

DEFAULT = SHIPPED / "default"
REPO = "someone/arm"


class Hub(ThreadingHTTPServer):
    """Repositories as lists of commits, each a dict of files."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.repos: dict[str, list[dict[str, bytes]]] = {}
        self.created: list[dict[str, Any]] = []

    def commit_of(self, repo: str, number: int) -> str:
        return hashlib.sha1(f"{repo}{number}".encode()).hexdigest()

    def find(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commits = self.repos.get(repo, [])
        named = {self.commit_of(repo, i): files for i, files in enumerate(commits)}
        commit = self.commit_of(repo, len(commits) - 1) if revision == "main" else revision
        return (commit, named[commit]) if commit in named else None


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            repo, kind, revision = found[1], found[2], found[3] or "main"
            if not (state := self._state(repo, revision)):
                return
            commit, files = state
            if kind == "tree":
                tree = [
                    {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                    for name, content in files.items()
                ]
                return self._json(tree)
            siblings = [{"rfilename": name} for name in files]
            return self._json({"id": repo, "modelId": repo, "sha": commit, "private": False, "siblings": siblings})
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            if not (state := self._state(found[1], found[2])):
                return
            commit, files = state
            content = files[found[3]]
            self.send_response(200)
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)
            return
        self._json({"error": "not found"}, 404)

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.path == "/api/repos/create":
            told = json.loads(body)
            self.server.created.append(told)
            repo = f"{told['organization']}/{told['name']}"
            exists = repo in self.server.repos
            self.server.repos.setdefault(repo, [{}])
            url = f"http://127.0.0.1:{self.server.server_port}/{repo}"
            return self._json({"url": url, "id": repo, "name": repo}, 409 if exists else 200)
        if self.path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if "/preupload/" in self.path:
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self._json({"files": files})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", self.path.split("?")[0]):
            repo = found[1]
            lines = [json.loads(line) for line in body.splitlines()]
            added = {
                line["value"]["path"]: base64.b64decode(line["value"]["content"])
                for line in lines
                if line["key"] == "file"
            }
            commits = self.server.repos[repo]
            commits.append(commits[-1] | added)
            oid = self.server.commit_of(repo, len(commits) - 1)
            url = f"http://127.0.0.1:{self.server.server_port}/{repo}/commit/{oid}"
            return self._json({"success": True, "commitOid": oid, "commitUrl": url})
        self._json({"error": "not found"}, 404)

    def _state(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        state = self.server.find(repo, revision)
        if state is None:
            code = "RevisionNotFound" if repo in self.server.repos else "RepoNotFound"
            self._json({"error": code}, 404, {"X-Error-Code": code})
        return state

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        for name, said in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, said)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """An evaluation of the policy that ships: three of four, and none of four with shuffled words."""
    seeds = [200_000_000 + i for i in range(4)]
    policy = [EpisodeResult(seed=seed, success=i > 0) for i, seed in enumerate(seeds)]
    shuffled = [EpisodeResult(seed=seed, success=False) for seed in seeds]
    conditions = {
        "policy": summarise_condition("policy", policy),
        "shuffled_instruction": summarise_condition("shuffled_instruction", shuffled, policy=policy),
    }
    found = Results(
        checkpoint=CheckpointInfo(path="default", weights=weights_digest(DEFAULT)),
        seed=0,
        tasks={"track": TaskResult(conditions=conditions)},
        settings={"criteria": {"track": "near the target"}},
        gl_renderer="llvmpipe",
    )
    return save_results(found, tmp_path / "results.json")


def test_what_was_pushed_is_fetched(
    hub: Hub, results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["push", "default", REPO, "--results", str(results)]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out.split()[-1]
    pinned = f"hf://{REPO}@{hub.commit_of(REPO, 1)}"
    assert said == pinned
    published = hub.repos[REPO][-1]
    own = {file.name for file in DEFAULT.iterdir()}
    assert set(published) == {*own, "README.md", "results.json"}
    first = resolve_checkpoint(f"hf://{REPO}")
    assert weights_digest(first) == weights_digest(DEFAULT)
    assert load_checkpoint(first).purpose == load_checkpoint(DEFAULT).purpose
    assert pinned_name(first) == pinned
    assert resolve_checkpoint(pinned) == first
    assert from_cache(first.parent.parent) == first
    assert resolve_checkpoint(str(first.parent.parent)) == first
    # The next state is another one, and the first stays what it was.
    published["README.md"] = b"changed"
    hub.repos[REPO].append({**published, "evil.py": b"raise SystemExit"})
    second = resolve_checkpoint(f"hf://{REPO}")
    assert second != first
    assert not (second / "evil.py").exists()
    assert resolve_checkpoint(pinned) == first
    # Without a network what is there is taken, and nothing else.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert resolve_checkpoint(f"hf://{REPO}") == second
    assert main(["rollout", "hf://someone/else"]) == 2
    assert "the Hub cannot be reached, and the cache has no copy" in capsys.readouterr().err
    assert main(["push", "default", REPO]) == 2
    assert "HF_HUB_OFFLINE is set" in capsys.readouterr().err


def test_what_is_not_there_is_one_line(hub: Hub) -> None:
    hub.repos[REPO] = [{}]
    with pytest.raises(HubError, match="no such repository, or a private one"):
        resolve_checkpoint("hf://someone/else")
    with pytest.raises(HubError, match="has no revision 'v9'"):
        resolve_checkpoint(f"hf://{REPO}@v9")
    with pytest.raises(HubError, match="holds no checkpoint of vla_policy"):
        resolve_checkpoint(f"hf://{REPO}")


def test_the_card_says_what_is_known(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "folder"
    assert main(["push", "default", REPO, "--results", str(results), "--out", str(out), "--licence", "apache-2.0"]) == 0
    card = (out / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "apache-2.0"
    assert front["library_name"] == "vla_policy"
    assert "| **policy** | 75.0 % (30.1 to 95.4) |" in card
    assert "| shuffled instruction | 0.0 % (0.0 to 49.0) |" in card
    assert "`track`: near the target." in card
    assert f"vla eval hf://{REPO} --tasks track --episodes 4 --seed 0 --controls shuffled_instruction" in card
    assert "1500 episodes, 60086 steps of `reach`" in card
    assert "--train.learning_rate 0.0015" in card
    assert "cameras front, 64 x 64 pixels, of 20, 16, 12, 8, 4, 0 control steps before now" in card
    assert load_checkpoint(out).purpose.tasks == ("reach", "track", "track_motion")
    assert main(["push", "default", REPO, "--out", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["push", "default", REPO, "--out", str(tmp_path / "other")]) == 0
    assert "No evaluation was published" in (tmp_path / "other/README.md").read_text()


def test_results_of_other_weights_are_refused(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "folder")]
    assert main(["push", "track_event", REPO, "--results", str(results), *out]) == 2
    assert "judges other weights" in capsys.readouterr().err
    older = Path(__file__).parents[2] / "docs" / "results" / "default.json"  # weights were not noted then
    assert main(["push", "track_event", REPO, "--results", str(older), *out]) == 2
    assert "judges other weights" in capsys.readouterr().err
    assert main(["push", "default", REPO, "--results", str(older), *out]) == 0
    capsys.readouterr()
    assert main(["push", "default", REPO, "--results", str(tmp_path / "none.json"), *out]) == 2
    assert main(["push", "default", "arm", *out]) == 2
    assert "expected hf://owner/name" in capsys.readouterr().err
    assert main(["push", "default", f"{REPO}@main", *out]) == 2
    assert main(["push", "default", REPO, "--licence", "The MIT Licence", *out]) == 2


def test_what_is_no_results_and_no_place_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to("nowhere")
    for options, message in (
        (["--results", "/dev/zero", "--out=out"], "/dev/zero: not a file, expected the results.json"),
        (["--results=", "--out=out"], "--results is empty"),
        (["--out=link"], "is a link to nowhere, which is not there"),
        (["--out=."], "has no name"),
    ):
        assert main(["push", "default", REPO, *options]) == 2
        [line] = capsys.readouterr().err.strip().splitlines()
        assert message in line
    assert [path.name for path in tmp_path.iterdir()] == ["link"]
    monkeypatch.setattr("eval.push.shutil.copyfile", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main(["push", "default", REPO, "--out=out"]) == 130
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_a_run_publishes_its_own_evaluation(results: Path, tmp_path: Path) -> None:
    from eval.push import find_results

    run = tmp_path / "run"
    shutil.copytree(DEFAULT, run / "train" / "checkpoint")
    (run / "eval").mkdir()
    shutil.copy(results, run / "eval" / "results.json")
    assert find_results(run / "train" / "checkpoint", None) == run / "eval" / "results.json"


@pytest.mark.parametrize("name", ["hf://", "hf://a", "hf://a/b/c", "hf://a/b@", "hf:///etc/x", "hf://../x"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(HubError, match="expected hf://owner/name"):
        split_name(name)


def test_a_cache_with_several_snapshots(tmp_path: Path) -> None:
    folder = tmp_path / "models--someone--arm"
    for commit in ("a" * 40, "b" * 40):
        (folder / "snapshots" / commit).mkdir(parents=True)
    with pytest.raises(HubError, match="holds the snapshots aaaa"):
        resolve_checkpoint(str(folder))
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_bytes(b"\xff\xfe")
    with pytest.raises(HubError, match="holds the snapshots aaaa"):
        resolve_checkpoint(str(folder))
    (folder / "refs" / "main").write_text("b" * 40)
    assert resolve_checkpoint(str(folder)).name == "b" * 40
