"""Demonstrations: the same data whatever the workers and interruptions, only successes, clean labels under noise."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import training.collect
from configs.collect import SHARD_EPISODES, SHARD_SEEDS, CollectConfig
from configs.seeds import SEED_RANGE, collection_seed, split_seed
from envs.tabletop.env import TabletopEnv
from envs.tabletop.objects import SLOTS
from envs.tabletop.specs import SPECS
from envs.task import TaskSpec, find_task, use_task_modules
from envs.workers import Pulse
from training.collect import Demonstrator, collect
from training.data.episodes import Dataset, DatasetError, Episode, open_dataset

MakeEnv = Callable[..., TabletopEnv]

TASK = "reach"  # its episodes are the shortest


def demonstrate(env: Any, task: str, seed: int, noise: float, detours: float = 0.0) -> Episode:
    """One episode of a task's expert."""
    config = CollectConfig(cameras=env.cameras, size=env.size, noise=noise, detours=detours)
    episode = Demonstrator(env, find_task(task), config).demonstrate(seed)
    assert episode is not None
    return episode


def run_again(env: TabletopEnv, dataset: Dataset, index: int) -> dict[str, list[Any]]:
    """Replay an episode's executed actions, noting what is seen and what the expert says."""
    first, last = dataset.arrays["offsets"][index : index + 2]
    observation, info = env.reset(seed=int(dataset.arrays["seeds"][index]))
    expert = find_task(TASK).make_expert()
    seen: dict[str, list[Any]] = {name: [] for name in ("pixels", "agent_pos", "action", "boxes", "visible")}
    for step in range(first, last):
        secret = info["privileged"]
        seen["pixels"].append(observation["pixels"]["front"])
        seen["agent_pos"].append(observation["agent_pos"])
        seen["action"].append(expert.towards(env, info))
        seen["boxes"].append(secret["boxes"]["front"])
        seen["visible"].append(secret["visible"]["front"])
        observation, _, terminated, truncated, info = env.step(dataset.arrays["executed"][step])
    seen["over"], seen["success"] = [terminated or truncated], [info["is_success"]]
    seen["instruction"] = [observation["instruction"]]
    return seen


def test_what_is_stored_is_what_happened(collected: Dataset, make_env: MakeEnv, small: dict[str, Any]) -> None:
    env = make_env(TASK, cameras=("front",), size=small["size"])
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


@pytest.mark.parametrize("task", sorted(SPECS))
def test_every_object_that_words_single_out_gets_an_instruction_that_means_it(task: str, make_env: MakeEnv) -> None:
    env = make_env(task, cameras=("front",), size=16)
    spec = find_task(task)
    for seed in range(6):
        episode = demonstrate(env, task, seed, 0.3)
        referents = env.layout.referents + [None] * (SLOTS - len(env.layout.referents))
        for text, words in zip(episode.instructions, referents, strict=True):
            assert (text is None) == (words is None)
            if text is not None and words is not None:
                found = spec.read(text)["referent"]
                assert (found.motion or found.pair) == (words.motion or words.pair)
                assert found.event == words.event
        assert episode.instructions[episode.target] == env.instruction
        shown = len(env.layout.objects)
        assert not episode.boxes[:, :, shown:].any()
        assert not episode.visible[:, :, shown:].any()


def test_the_labels_of_another_object_are_those_of_an_expert_that_goes_there(make_env: MakeEnv) -> None:
    """Acting on any object's labels, a chunk at a time, succeeds for that object."""
    env, expert = make_env("track", cameras=("front",), size=16), find_task("track").make_expert()
    for other in range(SLOTS):
        _, info = env.reset(seed=5)
        while env.step_count < env.horizon:
            chunk = expert.plan(env, [info], 3)
            assert chunk.shape == (1, SLOTS, 3, 2)
            for action in chunk[0, other, : env.horizon - env.step_count]:
                *_, info = env.step(action)
        assert env.judge(other)


def test_a_plan_foretells_what_the_expert_does(make_env: MakeEnv) -> None:
    for task in SPECS:
        env = make_env(task, cameras=("front",), size=16)
        for seed in range(3):
            episode = demonstrate(env, task, seed, 0.0)
            planned = episode.action[:, episode.target]
            for ahead in (1, 4):
                off = np.abs(planned[:-8, ahead] - planned[ahead : len(planned) - 8 + ahead, 0])
                assert off.mean() < 0.08, (task, seed, ahead)


def test_the_label_is_the_experts_clean_action_and_the_executed_one_is_not(
    collected: Dataset, make_env: MakeEnv, small: dict[str, Any]
) -> None:
    env = make_env(TASK, cameras=("front",), size=small["size"])
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
        episode = demonstrate(env, "track", seed, 0.3)
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
    episode = demonstrate(env, "track", 0, 0.0)
    np.testing.assert_array_equal(episode.action[:, episode.target, 0], episode.executed)
    assert episode.success
    assert len(episode) == env.horizon


def test_a_detour_leads_elsewhere_while_the_label_says_where_to_go(make_env: MakeEnv) -> None:
    env = make_env("track", cameras=("front",), size=16)
    straight, strayed = demonstrate(env, "track", 0, 0.0), demonstrate(env, "track", 0, 0.0, 1.0)
    assert strayed.target == straight.target
    assert strayed.instructions[strayed.target] == straight.instructions[straight.target]
    apart = np.flatnonzero(np.any(strayed.action[:, strayed.target, 0] != strayed.executed, axis=1))
    assert 0 < len(apart) < env.horizon
    assert apart[0] == 0
    assert np.all(np.diff(apart) <= 3)  # one detour, at the start
    np.testing.assert_array_equal(strayed.pixels[0], straight.pixels[0])


def test_only_successes_are_kept_and_failures_are_counted(
    collected: Dataset, make_env: MakeEnv, small: dict[str, Any]
) -> None:
    env = make_env(TASK, cameras=("front",), size=small["size"])
    failures = 0
    for shard in range(2):
        kept = collected.arrays["seeds"][shard * SHARD_EPISODES : (shard + 1) * SHARD_EPISODES]
        tried = [split_seed("train", shard * SHARD_SEEDS + i) for i in range(int(kept[-1]) - shard * SHARD_SEEDS + 1)]
        assert (np.diff(kept) > 0).all()
        dropped = sorted(set(tried) - set(kept.tolist()))
        failures += len(dropped)
        config = CollectConfig(**small)
        for seed in dropped[:2]:
            episode = demonstrate(env, TASK, seed, config.noise, config.detours)
            assert not episode.success
    assert failures > 0  # or this test shows nothing
    assert collected.header["failures"] == failures
    assert collected.episodes == small["episodes"]


def test_the_header_says_where_the_data_came_from(collected: Dataset, small: dict[str, Any]) -> None:
    header = collected.header
    assert header["task"] == TASK
    assert header["cameras"] == ["front"]
    spec = find_task(TASK)
    assert header["action_names"] == list(spec.action_names) == ["dx", "dy", "dz"]
    assert header["agent_pos_names"] == list(spec.agent_pos_names)
    assert header["control_hz"] == spec.control_hz == 20
    assert set(header["versions"]) == {"mujoco", "gymnasium", "numpy"}
    assert header["gl_renderer"]
    assert header["collection"] == {**CollectConfig(**small).content(TASK), "version": spec.version}
    assert "workers" not in header["collection"]
    assert collected.arrays["pixels"].shape[1:] == (1, 16, 16, 3)


def handler(
    env: TabletopEnv, config: CollectConfig, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], None]:
    """What collects a shard in a worker, here and with this environment."""
    monkeypatch.setattr(training.collect, "make_task", lambda task, **_: env)
    monkeypatch.setattr(training.collect, "check_contract", lambda *_: None)
    return training.collect._prepare(Pulse(multiprocessing), (TASK, config, folder), ExitStack())


def test_an_unstable_simulation_never_enters_a_dataset(
    make_env: MakeEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo leaves a log file where it is
    env = make_env(TASK, cameras=("front",), size=16)
    reset = env.reset
    monkeypatch.setattr(env, "reset", lambda **kwargs: spoiled(env, reset, kwargs["seed"]))
    config = CollectConfig(episodes=3, size=16, noise=0.0, detours=0.0)
    handler(env, config, tmp_path, monkeypatch)(0)
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
    monkeypatch.setattr(training.shards, "SHARD_SEEDS", 4)
    monkeypatch.setattr(Demonstrator, "demonstrate", lambda *_: None)
    handle = handler(make_env(TASK, size=16), CollectConfig(episodes=3, size=16), tmp_path, monkeypatch)
    with pytest.raises(DatasetError, match="task reach: only 0 of 4 episodes succeed"):
        handle(0)
    assert not (tmp_path / "00000").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"episodes": 0}, "episodes 0 must be at least 1"),
        ({"size": 8}, "size 8 must lie between 16 and 512 pixels"),
        ({"noise": -0.1}, "noise -0.1 must lie between 0 and 2"),
        ({"noise": 3.0}, "noise 3.0 must lie between 0 and 2"),
        ({"split": "test"}, "split 'test' must be 'train' or 'validation'"),
        ({"workers": -1}, "workers -1 must be 0"),
        ({"seed": -1}, "seed -1"),
        ({"seed": SEED_RANGE}, f"seed {SEED_RANGE} must lie between 0 and {SEED_RANGE - 1}"),
        ({"episodes": 2_500_001}, "episodes 2500001 need more seeds than there are"),
        ({"detours": 1.1}, "detours 1.1 must lie between 0 and 1"),
        ({"plan_steps": 0}, "plan_steps 0 must be at least 1"),
        ({"cameras": ()}, r"collect\.cameras \[\] must name one or more cameras"),
        ({"cameras": ("front", "front")}, "each once"),
        ({"timeout": 0.0}, "timeout 0.0 must be above 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CollectConfig(**change)


def test_an_unknown_task_is_refused_before_anything_starts(tmp_path: Path, small: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"'reech' is unknown \(did you mean reach\?\)"):
        collect("reech", CollectConfig(**small), tmp_path / "data")
    assert not list(tmp_path.iterdir())


class TestSeeds:
    def test_the_splits_never_meet_whatever_is_collected(self) -> None:
        largest = CollectConfig(episodes=SHARD_EPISODES * SEED_RANGE // SHARD_SEEDS)
        for seed in (0, 1, SEED_RANGE - 1):
            for split, other in (("train", "validation"), ("validation", "test")):
                tried = [collection_seed(split, seed, i) for i in (0, 1, largest.shards * SHARD_SEEDS - 1)]
                assert max(tried) < split_seed(other, 0)
                assert min(tried) >= split_seed(split, 0)

    def test_seed_0_gives_the_seeds_it_always_gave(self) -> None:
        assert [collection_seed("train", 0, i) for i in (0, 1, 999, 1000)] == [0, 1, 999, 1000]
        assert collection_seed("validation", 0, 7) == split_seed("validation", 7)

    @pytest.mark.parametrize(("seeds", "apart"), [(100, 500_000), (400, 110_000), (1000, 45_000)])
    def test_neighbouring_seeds_share_no_scene(self, seeds: int, apart: int) -> None:
        """Each collection tries seeds from its start on: so many lie between any two starts, round the range."""
        starts = sorted(collection_seed("train", seed, 0) for seed in range(seeds))
        gaps = [b - a for a, b in pairwise([*starts, starts[0] + SEED_RANGE])]
        assert min(gaps) > apart
        assert apart * SHARD_EPISODES // SHARD_SEEDS > 1000  # episodes: as many as a collection has

    def test_what_two_collections_hold_differs(self, foreign: Path, tmp_path: Path) -> None:
        use_task_modules([str(foreign)])
        tried: list[list[int]] = []
        for seed in (0, 1):
            config = CollectConfig(episodes=3, size=32, cameras=("top",), seed=seed, noise=0.0)
            setup = ("dots/plain", config, tmp_path / str(seed))
            handle = training.collect._prepare(Pulse(multiprocessing), setup, ExitStack())
            (tmp_path / str(seed)).mkdir()
            handle(0)
            tried.append(open_dataset(tmp_path / str(seed) / "00000").arrays["seeds"].tolist())
        assert tried[0][0] < SHARD_SEEDS
        assert not set(tried[0]) & set(tried[1])


class TestForeignTasks:
    """One label a step, boxes of the one thing that was meant, where there are any."""

    @pytest.fixture
    def recorded(self, foreign: Path, tmp_path: Path) -> Callable[[str], Dataset]:
        use_task_modules([str(foreign)])

        def record(task: str) -> Dataset:
            config = CollectConfig(episodes=4, size=32, cameras=("side", "top"), noise=0.3, detours=1.0)
            training.collect._prepare(Pulse(multiprocessing), (task, config, tmp_path), ExitStack())(0)
            return open_dataset(tmp_path / "00000")

        return record

    def test_without_labels(self, recorded: Callable[[str], Dataset]) -> None:
        data, spec = recorded("dots/plain"), find_task("dots/plain")
        assert not data.labelled
        assert data.steps == 4 * spec.horizon
        assert data.arrays["action"].shape == (data.steps, 1, 1, 2)
        assert np.abs(data.arrays["action"]).max() <= 1
        assert data.arrays["targets"].tolist() == [0] * 4
        assert data.arrays["events"].tolist() == [[[0, spec.horizon]]] * 4
        assert all(text is not None and text.startswith("go to the") for [text] in data.instructions)
        self.check_interface(data, spec)

    def test_with_labels(self, recorded: Callable[[str], Dataset]) -> None:
        data, spec = recorded("dots/labelled"), find_task("dots/labelled")
        assert data.arrays["boxes"].shape == (data.steps, 2, 1, 4)
        assert data.arrays["visible"].all()
        self.check_interface(data, spec)
        # The box is that of the thing that is named: its middle has the colour.
        for step in (0, 20, data.steps - 1):
            [text] = data.instructions[step // spec.horizon]
            x, y = (data.arrays["boxes"][step, 0, 0, :2] * 32).astype(int)
            colour = data.arrays["pixels"][step, 0, y, x]
            if colour.min() < 200:  # the white hand may be on it
                assert text == f"go to the {'red' if colour[0] > colour[1] else 'green'} dot"

    def check_interface(self, data: Dataset, spec: TaskSpec) -> None:
        assert data.interface.cameras == ("side", "top")
        assert data.interface.action_names == spec.action_names
        assert data.interface.agent_pos_names == spec.agent_pos_names
        assert data.interface.control_hz == 5

    def test_what_is_done_is_the_label_and_noise(self, recorded: Callable[[str], Dataset]) -> None:
        data = recorded("dots/plain")
        off = data.arrays["executed"] - data.arrays["action"][:, 0, 0]
        assert 0 < np.abs(off).mean() < 0.5
