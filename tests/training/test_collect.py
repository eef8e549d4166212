"""Demonstrations: the same data whatever the workers and interruptions, only successes, clean labels under noise."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import training.collect
from configs.collect import SHARD_EPISODES, SHARD_SEEDS, CollectConfig
from configs.seeds import SEED_RANGE, split_seed
from envs.tabletop.env import TabletopEnv
from envs.tabletop.events import read_event
from envs.tabletop.instructions import read_object
from envs.tabletop.objects import SLOTS
from envs.tabletop.plans import EXPERTS, plan
from envs.tabletop.situation import Situation
from envs.tabletop.tasks.track_motion import read_motion
from envs.task import TASK_IDS
from training.collect import collect, run_expert
from training.data.episodes import Dataset, DatasetError, open_dataset

MakeEnv = Callable[..., TabletopEnv]

TASK = "reach"  # its episodes are the shortest
SMALL: dict[str, Any] = {"episodes": SHARD_EPISODES + 3, "size": 16, "noise": 0.6, "workers": 1}


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Two shards, collected without interruption by one worker."""
    return collect(TASK, CollectConfig(**SMALL), tmp_path_factory.mktemp("collected") / "data")


def assert_same_bytes(left: Path, right: Path) -> None:
    assert sorted(file.name for file in left.iterdir()) == sorted(file.name for file in right.iterdir())
    for file in left.iterdir():
        assert file.read_bytes() == (right / file.name).read_bytes(), file.name


def run_again(env: TabletopEnv, dataset: Dataset, index: int) -> dict[str, list[Any]]:
    """Replay an episode's executed actions, noting what is seen and what the expert says."""
    first, last = dataset.arrays["offsets"][index : index + 2]
    observation, info = env.reset(seed=int(dataset.arrays["seeds"][index]))
    seen: dict[str, list[Any]] = {name: [] for name in ("pixels", "agent_pos", "action", "boxes", "visible")}
    for step in range(first, last):
        secret = info["privileged"]
        seen["pixels"].append(observation["pixels"]["front"])
        seen["agent_pos"].append(observation["agent_pos"])
        seen["action"].append(EXPERTS[TASK](Situation.of(secret)))
        seen["boxes"].append(secret["boxes"]["front"])
        seen["visible"].append(secret["visible"]["front"])
        observation, _, terminated, truncated, info = env.step(dataset.arrays["executed"][step])
    seen["over"], seen["success"] = [terminated or truncated], [info["is_success"]]
    seen["instruction"] = [observation["instruction"]]
    return seen


def test_what_is_stored_is_what_happened(collected: Dataset, make_env: MakeEnv) -> None:
    env = make_env(TASK, cameras=("front",), size=SMALL["size"])
    for index in (0, 7, collected.episodes - 1):
        seen = run_again(env, collected, index)
        first, last = collected.arrays["offsets"][index : index + 2]
        for name in ("pixels", "boxes", "visible"):
            np.testing.assert_array_equal(collected.arrays[name][first:last, 0], seen[name])
        np.testing.assert_array_equal(collected.arrays["agent_pos"][first:last], seen["agent_pos"])
        np.testing.assert_array_equal(collected.arrays["events"][index], [(0, last - first)] * SLOTS)
        assert collected.instructions[index][env.layout.target] == seen["instruction"][0]
        assert collected.arrays["targets"][index] == env.layout.target
        assert seen["over"] == [True]
        assert seen["success"] == [True]


@pytest.mark.parametrize("task", sorted(TASK_IDS))
def test_every_object_that_words_single_out_gets_an_instruction_that_means_it(task: str, make_env: MakeEnv) -> None:
    env = make_env(task, cameras=("front",), size=16)
    read = {"track_motion": read_motion, "track_event": read_event}.get(task, read_object)
    for seed in range(6):
        episode = run_expert(env, seed, 0.3)
        assert episode is not None
        referents = env.layout.referents + [None] * (SLOTS - len(env.layout.referents))
        for text, words in zip(episode.instructions, referents, strict=True):
            assert (text is None) == (words is None)
            if text is not None and words is not None:
                found = read(text)
                assert (found.motion or found.pair) == (words.motion or words.pair)
                assert found.event == words.event
        assert episode.instructions[episode.target] == env.instruction
        shown = len(env.layout.objects)
        assert not episode.boxes[:, :, shown:].any()
        assert not episode.visible[:, :, shown:].any()


def test_the_labels_of_another_object_are_those_of_an_expert_that_goes_there(make_env: MakeEnv) -> None:
    """Acting on any object's labels, a chunk at a time, succeeds for that object."""
    env = make_env("track", cameras=("front",), size=16)
    for other in range(SLOTS):
        _, info = env.reset(seed=5)
        while env.step_count < env.horizon:
            secret = info["privileged"]
            now = Situation.of(secret)
            chunk = plan(
                EXPERTS["track"],
                env.action_names,
                positions=now.positions[None],
                velocities=now.velocities[None],
                half_heights=now.half_heights,
                hands=secret["hand"][None],
                steps=3,
            )
            assert chunk.shape == (1, SLOTS, 3, 2)
            for action in chunk[0, other, : env.horizon - env.step_count]:
                *_, info = env.step(action)
        assert env.judge(other)


def test_a_plan_foretells_what_the_expert_does(make_env: MakeEnv) -> None:
    for task in TASK_IDS:
        env = make_env(task, cameras=("front",), size=16)
        for seed in range(3):
            episode = run_expert(env, seed, 0.0, 0.0)
            assert episode is not None
            planned = episode.action[:, episode.target]
            for ahead in (1, 4):
                off = np.abs(planned[:-8, ahead] - planned[ahead : len(planned) - 8 + ahead, 0])
                assert off.mean() < 0.08, (task, seed, ahead)


def test_the_label_is_the_experts_clean_action_and_the_executed_one_is_not(
    collected: Dataset, make_env: MakeEnv
) -> None:
    env = make_env(TASK, cameras=("front",), size=SMALL["size"])
    for index in (1, 4):
        first, last = collected.arrays["offsets"][index : index + 2]
        again = run_again(env, collected, index)["action"]
        np.testing.assert_array_equal(collected.arrays["action"][first:last, :, 0], again)
    episode = np.repeat(np.arange(collected.episodes), np.diff(collected.arrays["offsets"]))
    targets = collected.arrays["targets"][episode]
    action, executed = collected.arrays["action"][np.arange(collected.steps), targets, 0], collected.arrays["executed"]
    assert np.abs(collected.arrays["action"]).max() <= 1
    assert np.abs(executed).max() <= 1
    assert np.mean(np.any(action != executed, axis=1)) > 0.99


def test_noise_has_the_level_and_the_correlation_it_should(make_env: MakeEnv) -> None:
    env = make_env("track", cameras=("front",), size=16)
    levels, correlations = [], []
    for seed in range(24):
        episode = run_expert(env, seed, 0.3)
        assert episode is not None
        inside = np.abs(episode.executed).max(axis=1) < 1  # where nothing was clipped
        noise = (episode.executed - episode.action[:, episode.target, 0])[20:]
        levels.append(noise[inside[20:]].std())
        correlations.append(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1])
    assert 0.1 < np.mean(levels) < 0.2  # uniform up to 0.3
    assert max(levels) < 0.45
    assert np.std(levels) > 0.05
    assert 0.6 < np.mean(correlations) < 0.85


def test_without_noise_and_detours_the_executed_action_is_the_label(make_env: MakeEnv) -> None:
    env = make_env("track", cameras=("front",), size=16)
    episode = run_expert(env, 0, 0.0, 0.0)
    assert episode is not None
    np.testing.assert_array_equal(episode.action[:, episode.target, 0], episode.executed)
    assert episode.success
    assert len(episode) == env.horizon


def test_a_detour_leads_elsewhere_while_the_label_says_where_to_go(make_env: MakeEnv) -> None:
    env = make_env("track", cameras=("front",), size=16)
    straight, strayed = run_expert(env, 0, 0.0, 0.0), run_expert(env, 0, 0.0, 1.0)
    assert straight is not None
    assert strayed is not None
    assert strayed.target == straight.target
    assert strayed.instructions[strayed.target] == straight.instructions[straight.target]
    apart = np.flatnonzero(np.any(strayed.action[:, strayed.target, 0] != strayed.executed, axis=1))
    assert 0 < len(apart) < env.horizon
    assert apart[0] == 0
    assert np.all(np.diff(apart) <= 3)  # one detour, at the start
    np.testing.assert_array_equal(strayed.pixels[0], straight.pixels[0])


def test_only_successes_are_kept_and_failures_are_counted(collected: Dataset, make_env: MakeEnv) -> None:
    env = make_env(TASK, cameras=("front",), size=SMALL["size"])
    failures = 0
    for shard in range(2):
        kept = collected.arrays["seeds"][shard * SHARD_EPISODES : (shard + 1) * SHARD_EPISODES]
        tried = [split_seed("train", shard * SHARD_SEEDS + i) for i in range(int(kept[-1]) - shard * SHARD_SEEDS + 1)]
        assert (np.diff(kept) > 0).all()
        dropped = sorted(set(tried) - set(kept.tolist()))
        failures += len(dropped)
        config = CollectConfig(**SMALL)
        for seed in dropped[:2]:
            episode = run_expert(env, seed, config.noise, config.detours)
            assert episode is not None
            assert not episode.success
    assert failures > 0  # or this test shows nothing
    assert collected.header["failures"] == failures
    assert collected.episodes == SMALL["episodes"]


def test_the_header_says_where_the_data_came_from(collected: Dataset) -> None:
    header = collected.header
    assert header["task"] == TASK
    assert header["cameras"] == ["front"]
    assert header["action_names"] == ["dx", "dy", "dz"]
    assert header["control_hz"] == 20
    assert set(header["versions"]) == {"mujoco", "gymnasium", "numpy"}
    assert header["gl_renderer"]
    assert header["collection"] == CollectConfig(**SMALL).content(TASK)
    assert "workers" not in header["collection"]
    assert collected.arrays["pixels"].shape[1:] == (1, 16, 16, 3)


def test_the_number_of_workers_does_not_change_a_byte(collected: Dataset, tmp_path: Path) -> None:
    told: list[tuple[int, int, float]] = []
    config = CollectConfig(**{**SMALL, "workers": 2})
    collect(TASK, config, tmp_path / "data", on_progress=lambda *state: told.append(state))
    assert_same_bytes(collected.path, tmp_path / "data")
    assert told[0][0] == 0
    assert told[-1][:2] == (SMALL["episodes"], collected.header["failures"])
    assert told[-1][2] > 0
    assert not (tmp_path / "data.shards").exists()


def test_killed_and_called_again_it_goes_on_where_it_stopped(collected: Dataset, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"""
from pathlib import Path
from configs.collect import CollectConfig
from training.collect import collect
if __name__ == "__main__":
    progress = lambda episodes, failures, rate: print(episodes, flush=True)
    collect({TASK!r}, CollectConfig(**{SMALL!r}), Path({str(tmp_path / "data")!r}), on_progress=progress)
""")
    process = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == SHARD_EPISODES:
            break
    workers = children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    shards = tmp_path / "data.shards"
    assert not (tmp_path / "data").exists()
    first = shards / "00000"
    assert open_dataset(first).episodes == SHARD_EPISODES
    assert workers
    wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    written = first.stat().st_mtime_ns
    (shards / "00001.partial").mkdir(exist_ok=True)  # as an interrupted write leaves it
    kept: list[int] = []

    def note(episodes: int, failures: int, rate: float) -> None:
        kept.append(episodes)
        assert first.stat().st_mtime_ns == written

    collect(TASK, CollectConfig(**SMALL), tmp_path / "data", on_progress=note)
    assert kept[0] == SHARD_EPISODES
    assert_same_bytes(collected.path, tmp_path / "data")
    assert not shards.exists()


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until, "workers outlive the process that started them"
        time.sleep(0.05)


def test_as_many_workers_as_there_are_usable_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def start(workers: int) -> None:
        asked.append(workers)
        raise InterruptedError

    monkeypatch.setattr(training.collect, "usable_cores", lambda: 3)
    monkeypatch.setattr(training.collect, "_pool", start)
    for shards, workers in ((9, 0), (2, 0), (9, 5)):
        with pytest.raises(InterruptedError):
            collect(TASK, CollectConfig(episodes=shards * SHARD_EPISODES, workers=workers), tmp_path / "data")
    assert asked == [3, 2, 5]


def test_a_finished_collection_is_only_opened(collected: Dataset, tmp_path: Path) -> None:
    shutil.copytree(collected.path, tmp_path / "data")
    (tmp_path / "data.shards").mkdir()  # as a call leaves it that is killed while it tidies up
    again = collect(TASK, CollectConfig(**{**SMALL, "workers": 2}), tmp_path / "data")
    assert again.episodes == collected.episodes
    assert not (tmp_path / "data.shards").exists()


@pytest.mark.parametrize("change", [{"noise": 0.1}, {"seed": 1}, {"size": 32}, {"split": "validation"}])
def test_other_settings_are_refused(change: dict[str, Any], collected: Dataset, tmp_path: Path) -> None:
    config = CollectConfig(**{**SMALL, **change})
    with pytest.raises(DatasetError, match="collected with other settings") as caught:
        collect(TASK, config, collected.path)
    assert str(collected.path) in str(caught.value)
    with pytest.raises(DatasetError, match="collected with other settings"):
        collect("track", CollectConfig(**SMALL), collected.path)
    (tmp_path / "data.shards").mkdir()
    shutil.copytree(collected.path, tmp_path / "data.shards" / "00000")
    with pytest.raises(DatasetError, match=r"data\.shards: left by a collection with other settings; remove it"):
        collect(TASK, config, tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_damaged_shard_is_refused_by_name(collected: Dataset, tmp_path: Path) -> None:
    shutil.copytree(collected.path, tmp_path / "data.shards" / "00001")
    with (tmp_path / "data.shards" / "00001" / "pixels.npy").open("r+b") as stream:
        stream.seek(5000)
        stream.write(b"\x00\x01\x02\x03")
    with pytest.raises(DatasetError, match=r"00001/pixels\.npy: checksum differs"):
        collect(TASK, CollectConfig(**SMALL), tmp_path / "data")


def test_an_unstable_simulation_never_enters_a_dataset(
    make_env: MakeEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo leaves a log file where it is
    env = make_env(TASK, cameras=("front",), size=16)
    reset = env.reset
    monkeypatch.setattr(env, "reset", lambda **kwargs: spoiled(env, reset, kwargs["seed"]))
    monkeypatch.setattr(training.collect, "_worker_env", lambda task, config: env)
    config = CollectConfig(episodes=3, size=16, noise=0.0, detours=0.0)
    training.collect._collect_shard(TASK, config, tmp_path, 0)
    dataset = open_dataset(tmp_path / "00000")
    assert dataset.arrays["seeds"].tolist() == [1, 3, 5]  # every even seed went wrong
    assert dataset.header["failures"] == 3


def spoiled(env: TabletopEnv, reset: Callable[..., Any], seed: int) -> Any:
    start = reset(seed=seed)
    if seed % 2 == 0:
        env._data.qvel[2] = 1e12
    return start


def test_a_task_nobody_can_do_stops_with_a_reason(
    make_env: MakeEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.collect, "SHARD_SEEDS", 4)
    monkeypatch.setattr(training.collect, "run_expert", lambda *_: None)
    monkeypatch.setattr(training.collect, "_worker_env", lambda task, config: make_env(TASK))
    with pytest.raises(DatasetError, match="task reach: only 0 of 4 episodes succeed"):
        training.collect._collect_shard(TASK, CollectConfig(episodes=3), tmp_path, 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"episodes": 0}, "episodes 0 must be at least 1"),
        ({"size": 8}, "size 8 must lie between 16 and 640 pixels"),
        ({"noise": -0.1}, "noise -0.1 must lie between 0 and 2"),
        ({"noise": 3.0}, "noise 3.0 must lie between 0 and 2"),
        ({"split": "test"}, "split 'test' must be 'train' or 'validation'"),
        ({"workers": -1}, "workers -1 must be 0"),
        ({"seed": -1}, "seed -1"),
        ({"seed": SEED_RANGE - SHARD_SEEDS}, "leaves the range below 100000000"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CollectConfig(**change)


def test_an_unknown_task_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'reech' is unknown \(did you mean reach\?\)"):
        collect("reech", CollectConfig(**SMALL), tmp_path / "data")
    assert not list(tmp_path.iterdir())


def test_seeds_of_the_splits_never_meet_whatever_is_collected() -> None:
    largest = CollectConfig(episodes=SHARD_EPISODES * SEED_RANGE // SHARD_SEEDS, seed=0)
    last = split_seed("train", (largest.shards - 1) * SHARD_SEEDS + SHARD_SEEDS - 1)
    assert last < split_seed("validation", 0)
