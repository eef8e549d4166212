"""`vla dagger`: rounds that are the same whether they were interrupted or not, and what is told of wrong arguments."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import eval.dagger
import eval.evaluate
import training.commands
import training.shards
from configs.policy import PolicyConfig
from configs.training import TrainConfig
from envs.task import use_task_modules
from envs.workers import Pulse
from eval.results import load_results
from eval.rounds import first_difference, load_rounds
from training.data.episodes import DatasetError, open_dataset
from training.start import weights_print
from vla_policy.checkpoint import load_checkpoint
from vla_policy.cli import main

Arguments = Callable[..., list[str]]
TINY = """
tasks: [dots/plain]
collect: {episodes: 3, size: 32, cameras: [top], noise: 0.1}
policy:
  width: 8
  attention_heads: 2
  frames: 2
  cameras: [top]
  encoder: {backbone: {channels: 4, layers: 1}, two_stream: {temporal_channels: 2}}
  fusion: {bidirectional: {layers: 1}}
  head: {chunk: 3, hidden: 8}
train: {steps: 3, batch: 4, warmup: 1, threads: 1, device: cpu, log_every: 1, save_every: 2, holdout: 0.0}
dagger: {rounds: 2, episodes: 2, steps: 2, stretch: 4, validation: 2}
"""


def here(
    jobs: deque[Any], prepare: Callable[[Pulse, Any], Callable[[Any], Any]], setup: Any, **_: Any
) -> Iterator[Any]:
    """In place of worker processes, which take seconds to start."""
    handle = prepare(Pulse(multiprocessing), setup)
    while jobs:
        job = jobs.popleft()
        yield job, handle(job)


@pytest.fixture
def arguments(foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Arguments:
    """Makes the arguments of a small call that writes to this folder."""
    monkeypatch.setattr(training.shards, "run_jobs", here)
    monkeypatch.setattr(eval.evaluate, "run_jobs", here)
    monkeypatch.setattr(eval.evaluate, "control_rate", lambda *_: 1.0)
    use_task_modules([str(foreign)])
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)

    def make(out: str, *more: str) -> list[str]:
        return ["dagger", "--task-module", str(foreign), "--config", str(file), "--out", str(tmp_path / out), *more]

    return make


def error(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int = 2) -> str:
    capsys.readouterr()
    assert main(arguments) == code
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vla: ")]
    assert len(lines) == 1
    return lines[0]


def weights(out: Path, number: int) -> bytes:
    return (out / f"rounds/{number:02d}/train/checkpoint/model.safetensors").read_bytes()


def test_rounds_grow_and_are_the_same_after_an_interruption(
    arguments: Arguments, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(arguments("whole")) == 0
    said = capsys.readouterr().out
    assert "| 2 |" in said
    assert str(whole / "rounds.png") in said
    found = load_rounds(whole / "rounds.json").rounds
    assert [each.number for each in found] == [0, 1, 2]
    assert [each.share for each in found] == [1.0, 0.5, 0.25]
    assert [each.labels for each in found] == [36, 60, 84]
    assert all(each.success is not None and each.success.episodes == 2 for each in found)
    assert len({weights(whole, number) for number in range(3)}) == 3
    data = open_dataset(whole / "rounds/02/data/dots/plain")
    assert (data.episodes, data.on_policy) == (2, True)
    results = json.loads((whole / "rounds/01/eval/results.json").read_text())
    assert results["settings"]["split"] == "validation"
    judged = results["tasks"]["dots/plain"]["conditions"]["policy"]["results"]
    assert [episode["seed"] for episode in judged] == [100_000_000, 100_000_001]
    assert load_results(whole / "rounds/01/eval/results.json").settings["split"] == "validation"
    newest = load_checkpoint(whole / "checkpoint")
    assert len(newest.provenance["data"]) == 3
    assert newest.provenance["start"]["start"]["steps"] == 3
    # A state to go on from is left of the last round alone.
    assert [path.parent.parent.name for path in sorted(whole.glob("rounds/*/train/state"))] == ["02"]

    # Ended while the first round is collected, and while the second one trains.
    with monkeypatch.context() as patch:
        patch.setattr(training.shards, "merge_datasets", interrupt_at("rounds/01", training.shards.merge_datasets))
        assert "--resume goes on from there" in error(capsys, arguments("parts"), code=130)
    assert not (parts / "rounds/01/data/dots/plain").exists()
    with monkeypatch.context() as patch:
        patch.setattr(training.commands, "Progress", Terminating)
        assert main(arguments("parts", "--resume")) == 130
    assert len(load_rounds(parts / "rounds.json").rounds) == 2
    assert main(arguments("parts", "--resume")) == 0
    assert load_rounds(parts / "rounds.json") == load_rounds(whole / "rounds.json")
    assert [weights(parts, number) for number in range(3)] == [weights(whole, number) for number in range(3)]

    # More rounds go on from what is there; other settings do not.
    alone = tmp_path / "alone.json"  # as rounds in which the expert acts alone leave it
    acted = json.loads((whole / "rounds.json").read_text())
    alone.write_text(json.dumps({**acted, "rounds": [{**each, "share": 1.0} for each in acted["rounds"]]}))
    assert main(arguments("parts", "--resume", "--dagger.rounds", "3", "--cloning", str(alone))) == 0
    assert len(load_rounds(parts / "rounds.json").rounds) == 4
    message = error(capsys, arguments("parts", "--resume", "--dagger.beta", "0.9"))
    assert "dagger.beta was 0.5 and is now 0.9; give the same settings" in message
    assert "holds rounds already; add --resume" in error(capsys, arguments("parts"))
    message = error(capsys, arguments("parts", "--resume", "--eval.seed", "7"))
    assert "judged.seed was None and is now 7" in message
    message = error(capsys, arguments("other", "--cloning", str(whole / "rounds.json")))
    assert "in round 1 the expert acted with probability 0.5, expected 1, which is cloning" in message


def test_a_round_may_be_a_mean_of_before_and_after(arguments: Arguments, tmp_path: Path) -> None:
    assert main(arguments("out", "--dagger.blend", "0.25")) == 0
    folders = [tmp_path / "out/rounds" / part for part in ("00/train", "01/train", "01", "02/train", "02")]
    cloned, trained, mean, later, last = (load_file(folder / "checkpoint/model.safetensors") for folder in folders)
    for name, value in mean.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.75 * cloned[name] + 0.25 * trained[name])
            torch.testing.assert_close(last[name], 0.75 * value + 0.25 * later[name])
    assert any(not torch.equal(mean[name], value) for name, value in later.items())
    rows = load_rounds(tmp_path / "out/rounds.json").rounds
    assert [row.checkpoint for row in rows[1:]] == ["rounds/01/checkpoint", "rounds/02/checkpoint"]
    assert load_checkpoint(tmp_path / "out/checkpoint").provenance["blend"] == 0.25
    second = load_checkpoint(tmp_path / "out/rounds/02/train/checkpoint").provenance["start"]
    assert second["weights"] == weights_print(folders[2] / "checkpoint")


def interrupt_at(where: str, merge: Callable[..., None]) -> Callable[..., None]:
    def act(path: Path, *rest: Any) -> None:
        if where in str(path):
            raise KeyboardInterrupt
        merge(path, *rest)

    return act


class Terminating(training.commands.Progress):
    """Sends this process what a scheduler would, after the first step of the second round."""

    trainings = 0

    def __init__(self, label: str, total: int, unit: str) -> None:
        super().__init__(label, total, unit)
        Terminating.trainings += label == "train"

    def update(self, done: int, extra: str = "") -> None:
        super().update(done, extra)
        if self._label == "train" and Terminating.trainings == 2 and done == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_policy_and_data_that_are_there_are_taken(
    arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments("first", "--dagger.rounds", "1", "--dagger.validation", "0")) == 0
    assert not (tmp_path / "first/rounds.png").exists()
    begun = ["--policy-from", str(tmp_path / "first"), "--data", str(tmp_path / "first/data")]
    assert main(arguments("second", "--dagger.rounds", "1", "--dagger.validation", "0", *begun)) == 0
    assert not (tmp_path / "second/rounds/00").exists()
    assert [each.success for each in load_rounds(tmp_path / "second/rounds.json").rounds] == [None, None]
    assert "the policy of --policy-from is as it was trained" in error(
        capsys, arguments("third", *begun, "--policy.width", "16")
    )
    assert "start was" in error(
        capsys, arguments("second", "--resume", "--dagger.validation", "0", "--data", str(tmp_path / "first/data"))
    )


def test_no_scene_comes_back_in_later_calls(arguments: Arguments, tmp_path: Path) -> None:
    none = ["--dagger.rounds", "1", "--dagger.validation", "0"]
    demonstrations = ["--data", str(tmp_path / "first/data")]

    def seeds(out: str) -> set[int]:
        return set(open_dataset(tmp_path / out / "rounds/01/data/dots/plain").arrays["seeds"].tolist())

    assert main(arguments("first", *none)) == 0
    assert main(arguments("second", *none, *demonstrations, "--policy-from", str(tmp_path / "first"))) == 0
    assert main(arguments("third", *none, *demonstrations, "--policy-from", str(tmp_path / "second"))) == 0
    with_data = f"{tmp_path / 'first/data'},{tmp_path / 'third/rounds/01/data'}"
    assert main(arguments("fourth", *none, "--data", with_data)) == 0
    found = [seeds(out) for out in ("first", "second", "third", "fourth")]
    assert len(set.union(*found)) == sum(map(len, found)) == 8
    assert [load_rounds(tmp_path / out / "rounds.json").first_seed for out in ("first", "second")] == [500, 501]


def test_with_focus_a_task_counts_once_however_many_datasets_it_has(arguments: Arguments, tmp_path: Path) -> None:
    few = ["--dagger.rounds", "1", "--dagger.focus", "true", "--dagger.episodes", "4"]
    assert main(arguments("one", *few)) == 0
    data = f"{tmp_path / 'one/data'},{tmp_path / 'one/rounds/01/data'}"
    assert main(arguments("two", *few, "--data", data)) == 0
    assert open_dataset(tmp_path / "two/rounds/01/data/dots/plain").episodes == 4
    judged = load_results(tmp_path / "two/rounds/01/eval/results.json").tasks["dots/plain"].conditions["policy"]
    assert judged.episodes == 2


def test_what_another_command_left_is_not_replaced(
    arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments("made", "--dagger.rounds", "1", "--dagger.validation", "0")) == 0
    run = tmp_path / "made/rounds/01/train"
    before = weights(tmp_path / "made", 1)
    data = ["--data", str(tmp_path / "made/data"), "--policy-from", str(run)]
    message = error(capsys, arguments("made/rounds/01/train", *data))
    assert f"{run}: holds checkpoint of something else, which would be lost; choose another --out" in message
    assert weights(tmp_path / "made", 1) == before


def test_rounds_are_not_judged_on_what_they_learn_from(
    arguments: Arguments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--collect.split", "validation"]
    assert "rounds are judged on these scenes; collect 'train'" in error(capsys, arguments("out", *asked))
    collected = arguments("unused", *asked)
    collected[0], collected[collected.index("--out") + 1] = "collect", str(tmp_path / "data")
    assert main(collected) == 0
    message = error(capsys, arguments("out", "--data", str(tmp_path / "data")))
    assert "of the split 'validation', on which rounds are judged; give others" in message


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--resume"], "no rounds to resume; leave --resume out"),
        (["--policy-from", "nowhere"], "nowhere: no checkpoint folder here"),
        (["--policy-from", "default"], "collect.size 32 must be 64, which the policy of"),
        (["--cloning", "nothing.json"], "nothing.json: cannot be read"),
        (["--data", "nowhere"], "no dataset here"),
        (["--dagger.beta", "2"], "dagger.beta 2.0 must lie in [0, 1]"),
        (["--dagger.bta", "1"], "did you mean --dagger.beta?"),
        (["--tasks", "dots/alone"], "has no expert"),
    ],
)
def test_mistakes_come_to_light_before_the_work(
    arguments: Arguments,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
    words: str,
) -> None:
    def never(*_: Any) -> Any:
        raise DatasetError("collected")

    if "--resume" not in more:
        monkeypatch.setattr(eval.dagger, "collect_all", never)
    assert words in error(capsys, arguments("out", *more))


def test_rounds_from_before_a_setting_there_was_can_be_resumed() -> None:
    now = {"policy": asdict(PolicyConfig()), "train": asdict(TrainConfig()), "data": ["a"]}
    before = {**now, "policy": {name: value for name, value in now["policy"].items() if name != "frame_ages"}}
    assert first_difference(before, now) == ""
    now["policy"]["frame_ages"] = (5, 4, 3, 2, 1, 0)
    assert first_difference(before, now) == "policy.frame_ages was [] and is now [5, 4, 3, 2, 1, 0]"
    assert first_difference({**before, "data": ["b"]}, before) == "data was ['b'] and is now ['a']"
