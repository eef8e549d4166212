"""Experts that learn: what they see, what is stored of them, and what `vla rl` and `vla collect` make of it."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from stable_baselines3.common.env_checker import check_env

from configs.disk import DiskFullError
from configs.reinforcement import RLConfig
from envs.task import find_task, make_task, offers
from envs.workers import Pulse
from envs.wrappers import StateObservation, state_of
from training.data.episodes import open_dataset
from training.error import TrainingError
from training.reinforcement import learn as module
from training.reinforcement.expert import ExpertError, Learned, LearnedExpert, load_expert, save_expert
from training.reinforcement.learn import learn
from vla_policy.cli import main

TASKS = ("reach", "push", "place", "stack", "catch")
TINY = RLConfig(steps=48, envs=2, hidden=(8,), batch=8, warmup=16, memory=40, judge_every=24, episodes=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("rl") / "run"
    outcome = learn(TINY, "push", out)
    assert (outcome.step, outcome.interrupted, outcome.expert) == (48, False, out / "expert")
    return out


@pytest.mark.parametrize("task", TASKS)
class TestWhatIsSeen:
    def test_stable_baselines3_finds_nothing_to_say(self, task: str) -> None:
        env = StateObservation(make_task(task, cameras=(), size=32, labels=False), seed=1)
        check_env(env, warn=True)  # warnings are errors here
        env.close()

    def test_numbers_are_of_about_unit_scale_and_say_where_the_target_is(self, task: str) -> None:
        env = make_task(task, cameras=(), size=32, labels=False)
        seen = []
        for seed in range(20):
            _, info = env.reset(seed=seed)
            known, state = info["privileged"], state_of(env)
            seen.append(state)
            if task != "reach":
                to_target = known["bodies"][known["target"]] - known["hand"]
                np.testing.assert_allclose(state[12:15], 10 * to_target, atol=1e-4)
        env.close()
        assert np.abs(seen).max() < 10
        assert np.std(seen, axis=0).max() < 5

    def test_the_nearer_the_hand_the_higher_the_reward(self, task: str) -> None:
        """Along the scripted expert's way, most steps pay more than the first."""
        env, expert = make_task(task, cameras=(), size=32, labels=False), find_task(task).make_expert()
        dense, rewards = offers(env, "dense_reward"), []
        _, info = env.reset(seed=3)
        over = False
        while not over and len(rewards) < 40:
            _, reward, terminated, truncated, info = env.step(expert(env, info))
            over = terminated or truncated
            rewards.append(float(reward) if dense is None else dense())
        env.close()
        assert np.mean(np.array(rewards[1:]) > rewards[0]) > 0.7
        assert min(rewards) >= 0  # else it would pay to fail, where that ends an episode


def test_each_episode_is_another_scene_of_the_collection() -> None:
    env, again = (StateObservation(make_task("push", cameras=(), size=32, labels=False), seed=5) for _ in range(2))
    first = [env.reset()[0] for _ in range(3)]
    assert not np.array_equal(first[0], first[1])
    np.testing.assert_array_equal(first, [again.reset()[0] for _ in range(3)])
    again.scenes = 1
    np.testing.assert_array_equal(first[1], again.reset()[0])
    env.close()
    again.close()


def test_the_memory_may_begin_with_demonstrations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are the task's expert's, as the algorithm would have seen them had it acted so."""
    remembered: dict[str, np.ndarray] = {}

    def note(_folder: Path, model: Any) -> None:
        memory = model.replay_buffer
        remembered.update({name: getattr(memory, name)[:400].copy() for name in module.MEMORY})

    monkeypatch.setattr(module, "_save_state", note)
    monkeypatch.setattr(module, "NOISE", 0.0)
    config = replace(TINY, steps=2, warmup=0, envs=1, judge_every=2, memory=500, demonstrations=400)
    learn(config, "push", tmp_path / "run")
    env = StateObservation(make_task("push", cameras=(), size=32, labels=False), seed=10_000)
    expert, success = find_task("push").make_expert(), 0
    state, _ = env.reset()
    for i in range(400):
        action = expert(env.env, env.told)
        np.testing.assert_allclose(remembered["observations"][i, 0], state, atol=1e-5)
        np.testing.assert_allclose(remembered["actions"][i, 0], action, atol=1e-5)
        state, reward, terminated, truncated, info = env.step(action)
        np.testing.assert_allclose(remembered["next_observations"][i, 0], state, atol=1e-5)
        assert remembered["rewards"][i, 0] == pytest.approx(reward, abs=1e-4)
        assert remembered["dones"][i, 0] == (terminated or truncated)
        success += info["is_success"]
        if terminated or truncated:
            state, _ = env.reset()
    env.close()
    assert success


def test_a_task_without_a_state_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"offers no expert_state\(\)"):
        learn(TINY, "track", tmp_path / "run")


class TestTheRun:
    def test_judgements_are_logged_and_the_best_is_kept(self, run: Path) -> None:
        rows = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [24, 48]
        assert all(row["episodes"] == 1 for row in rows)
        assert not (run / "state").exists()
        assert json.loads((run / "expert/config.json").read_text())["origin"]["rl"]["steps"] == 48

    def test_a_signal_saves_the_state(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        out, stop = tmp_path / "run", Event()

        def note(step: int, _words: str) -> None:
            if step == 30:
                stop.set()

        monkeypatch.setattr(module, "interrupts", lambda _: nullcontext(stop))
        outcome = learn(TINY, "push", out, on_progress=note)
        assert (outcome.interrupted, outcome.step) == (True, 30)
        stop.clear()
        assert learn(TINY, "push", out, resume=True).step == 48

    def test_what_is_noted_is_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """An expert that does not fit on the disk is not noted as the best; and what is judged anew is noted once."""
        out, save, count = tmp_path / "run", module.save_expert, 0

        def fill_the_disk(*arguments: Any) -> None:
            nonlocal count
            count += 1
            if count == 2:
                raise DiskFullError("full")
            save(*arguments)

        config = replace(TINY, judge_every=16)
        monkeypatch.setattr(module, "save_expert", fill_the_disk)
        with pytest.raises(DiskFullError):
            learn(config, "push", out)
        log = out / "log.jsonl"
        assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [16]
        log.write_text(log.read_text() + '{"step": 32, "successes": 1, "episodes": 1}\n')
        learn(config, "push", out, resume=True)
        assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [16, 32, 48]
        assert json.loads((out / "expert/config.json").read_text())["origin"]["step"] == 48

    def test_a_state_that_does_not_fit_is_one_line(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def fill_the_disk(_values: Any, path: Path) -> None:
            path.write_bytes(b"half")
            raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 128 vs 22")

        monkeypatch.setattr(torch, "save", fill_the_disk)
        with pytest.raises(DiskFullError, match=r"state: not written, .*unexpected pos 128 vs 22.* free some space"):
            learn(TINY, "push", tmp_path / "run")
        assert not list((tmp_path / "run").glob("*state*"))

    def test_networks_that_are_not_finite_are_named(self, tmp_path: Path) -> None:
        with pytest.raises(TrainingError, match=r"has diverged.* a lower rl\.learning_rate"):
            learn(replace(TINY, learning_rate=1e30), "push", tmp_path / "run")

    def test_an_interrupted_run_goes_on(self, tmp_path: Path) -> None:
        out = tmp_path / "run"

        def stop(step: int, _words: str) -> None:
            if step == 30:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            learn(TINY, "push", out, on_progress=stop)
        assert (out / "state/state.pt").is_file()
        with pytest.raises(TrainingError, match="add --resume"):
            learn(TINY, "push", out)
        with pytest.raises(TrainingError, match=r"rl\.batch was 8 and is now 4"):
            learn(replace(TINY, batch=4), "push", out, resume=True)
        outcome = learn(TINY, "push", out, resume=True)
        assert outcome.step == 48
        assert [json.loads(line)["step"] for line in (out / "log.jsonl").read_text().splitlines()] == [24, 48]

    def test_a_state_is_put_back_as_it_was(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        kept: dict[str, Any] = {}
        save, load = module._save_state, module._load_state

        def save_and_note(folder: Path, model: Any) -> None:
            save(folder, model)
            kept["weights"] = {name: value.clone() for name, value in model.policy.state_dict().items()}
            kept["actions"] = model.replay_buffer.actions[: model.replay_buffer.pos].copy()

        def load_and_compare(folder: Path, model: Any, worlds: Any) -> None:
            load(folder, model, worlds)
            assert model.num_timesteps == 24
            assert all(torch.equal(value, kept["weights"][name]) for name, value in model.policy.state_dict().items())
            np.testing.assert_array_equal(model.replay_buffer.actions[: model.replay_buffer.pos], kept["actions"])

        def stop(step: int, _words: str) -> None:
            if step == 26:
                raise KeyboardInterrupt

        monkeypatch.setattr(module, "_save_state", save_and_note)
        monkeypatch.setattr(module, "_load_state", load_and_compare)
        with pytest.raises(KeyboardInterrupt):
            learn(TINY, "push", tmp_path / "run", on_progress=stop)
        learn(TINY, "push", tmp_path / "run", resume=True)

    @pytest.mark.parametrize("spoil", ["state.pt", "actions.npy"])
    def test_a_damaged_state_is_named(self, spoil: str, tmp_path: Path) -> None:
        def stop(step: int, _words: str) -> None:
            if step == 26:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            learn(TINY, "push", tmp_path / "run", on_progress=stop)
        (tmp_path / "run/state" / spoil).write_bytes(b"nothing")
        with pytest.raises(TrainingError, match="not a state of this run"):
            learn(TINY, "push", tmp_path / "run", resume=True)


class TestTheExpert:
    @pytest.fixture
    def learned(self) -> Learned:
        torch.manual_seed(0)
        sizes = {"0.weight": (4, 32), "0.bias": (4,), "1.weight": (3, 4), "1.bias": (3,)}
        weights = {name: torch.randn(size) for name, size in sizes.items()}
        return Learned(task="push", widths=(32, 4, 3), weights=weights, origin={"step": 7})

    def test_it_is_what_its_weights_say(self, learned: Learned, tmp_path: Path) -> None:
        save_expert(learned, tmp_path / "expert")
        env = make_task("push", cameras=(), size=32, labels=False)
        _, info = env.reset(seed=0)
        state = torch.from_numpy(state_of(env))
        inside = (learned.weights["0.weight"] @ state + learned.weights["0.bias"]).relu()
        expected = (learned.weights["1.weight"] @ inside + learned.weights["1.bias"]).tanh().numpy()
        for expert in (LearnedExpert(learned), load_expert(str(tmp_path), find_task("push"))):
            np.testing.assert_allclose(expert(env, info), expected, atol=1e-6)
        env.close()

    def test_what_is_no_expert_is_refused(self, learned: Learned, tmp_path: Path) -> None:
        path, spec = tmp_path / "expert", find_task("push")
        with pytest.raises(ExpertError, match="missing; name the folder of `vla rl`"):
            load_expert(str(path), spec)
        save_expert(learned, path)
        with pytest.raises(ExpertError, match="learned 'push', and cannot demonstrate 'reach'"):
            load_expert(str(path), find_task("reach"))
        config = path / "config.json"
        good = config.read_text()
        for bad in ("[", "{}", good.replace("32", "0"), good.replace("32", "33"), good.replace("32", '"x"')):
            config.write_text(bad)
            with pytest.raises(ExpertError, match="not an expert"):
                load_expert(str(path), spec)
        config.write_text(good)
        weights = load_file(path / "model.safetensors")
        save_file({**weights, "0.bias": torch.full((4,), torch.nan)}, path / "model.safetensors")
        with pytest.raises(ExpertError, match="not finite"):
            load_expert(str(path), spec)
        (path / "model.safetensors").write_bytes(b"\x80\x04")
        with pytest.raises(ExpertError, match="not an expert"):
            load_expert(str(path), spec)


class TestCommands:
    def test_what_was_learned_demonstrates(
        self, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The network is replaced by one that cannot fail: the scripted expert."""
        asked: list[str] = []

        def scripted(name: str, spec: Any) -> Callable[..., np.ndarray]:
            asked.append(name)
            expert: Callable[..., np.ndarray] = spec.make_expert()
            return expert

        monkeypatch.setattr("training.reinforcement.expert.load_expert", scripted)
        monkeypatch.setattr("training.shards.run_jobs", _here)
        where = ["--tasks", "push", "--out", str(tmp_path), "--collect.expert", str(run)]
        settings = ["--collect.episodes", "1", "--collect.size", "16", "--collect.noise", "0"]
        assert main(["collect", *where, *settings]) == 0
        data = open_dataset(tmp_path / "push")
        assert set(asked) == {str(run)}
        assert len(data.header["collection"]["expert"]) == 12
        assert main(["collect", *where[:-2], *settings]) == 2  # the scripted expert's data would be others
        assert "collected with other settings" in capsys.readouterr().err

    def test_an_expert_that_is_not_there_is_named_before_anything_starts(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        arguments = ["--tasks", "push", "--out", str(tmp_path / "data"), "--collect.expert", str(tmp_path)]
        assert main(["collect", *arguments]) == 2
        assert capsys.readouterr().err.startswith("vla: ")
        assert not (tmp_path / "data").exists()

    def test_bench_counts_what_it_does(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["bench", "--tasks", "push", "--expert", str(run), "--episodes", "1"]) == 0
        assert json.loads(capsys.readouterr().out)["experts"]["push"]["episodes"] == 1
        assert main(["bench", "--expert", str(run)]) == 2
        assert "name the task" in capsys.readouterr().err

    def test_one_task_at_a_time(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["rl", "--tasks", "push,reach", "--out", str(tmp_path / "run")]) == 2
        assert "an expert is learned for one task" in capsys.readouterr().err


def _here(jobs: Iterable[int], prepare: Callable[..., Callable[[int], None]], setup: Any, **_: Any) -> Iterator[Any]:
    """`run_jobs` in this process."""
    handle = prepare(Pulse(multiprocessing), setup)
    for job in list(jobs):
        handle(job)
        yield job, None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"hidden": ()}, "must name one or more widths"),
        ({"learning_rate": 0.0}, "must be above 0"),
        ({"updates": 0.0}, "must be above 0"),
        ({"updates": float("inf")}, "expected a finite number"),
        ({"demonstrations": 300_001}, "must not exceed rl.memory 300000"),
        ({"discount": 1.0}, r"must lie in \[0, 1\)"),
        ({"memory": 1}, "must hold a step of each"),
        ({"steps": 0}, "at least 1"),
        ({"steps": 5_000}, "must exceed rl.warmup 5000"),
        ({"batch": "many"}, "expected a whole number"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        RLConfig(**change)


def test_a_folder_in_use_is_kept(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    with pytest.raises(TrainingError, match="holds a run that is finished"):
        learn(TINY, "push", tmp_path / "run")
    with pytest.raises(TrainingError, match="holds a run that is finished"):
        learn(TINY, "push", tmp_path / "run", resume=True)
