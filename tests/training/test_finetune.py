"""Cloned policies that go on by reinforcement: what is decided, what learns, what stays, what `vla finetune` says."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

import training.collect
from configs.collect import CollectConfig
from configs.evaluation import RunnerConfig
from configs.policy import HeadConfig
from configs.reinforcement import FinetuneConfig
from envs.task import find_task, make_task
from envs.workers import Pulse
from training.data.episodes import Dataset, open_dataset
from training.error import TrainingError
from training.reinforcement import finetune as module
from training.reinforcement.finetune import finetune
from training.reinforcement.ppo import AnchoredPPO, HeadPolicy
from training.reinforcement.window import FeatureVecEnv, WindowEnv
from vla_policy.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vla_policy.cli import main
from vla_policy.policy import VLAPolicy
from vla_policy.runner import PolicyRunner

SaveTiny = Callable[..., Path]
TINY = FinetuneConfig(
    steps=24, envs=2, processes=False, decisions=6, epochs=2, batch=6, warmup=0, judge_every=1, episodes=1
)
EXECUTE = 2


@pytest.fixture
def cloned(save_tiny: SaveTiny) -> Path:
    spec = find_task("track")
    names = {"action_names": spec.action_names, "agent_pos_names": spec.agent_pos_names}
    return save_tiny(("front",), tasks=("track",), control_hz=20, **names)


def window(checkpoint: Checkpoint, seed: int = 0) -> WindowEnv:
    spec, shapes = find_task("track"), checkpoint.policy.shapes
    env = make_task("track", cameras=("front",), size=shapes.size, labels=False)
    return WindowEnv(env, spec, checkpoint, EXECUTE, seed)


class TestDecisions:
    def test_the_network_decides_what_the_runner_decides(self, cloned: Path) -> None:
        """The same scene, once by windows and their features, once by the runner: the same actions."""
        checkpoint = load_checkpoint(cloned)
        policy, shapes = checkpoint.policy, checkpoint.policy.shapes
        features = policy.head.layers[0].in_features
        worlds = FeatureVecEnv(DummyVecEnv([lambda: window(checkpoint)]), policy, features)
        worlds.seed(7)
        seen = worlds.reset()
        env = make_task("track", cameras=("front",), size=shapes.size, labels=False)
        observation, _ = env.reset(seed=7)
        runner = PolicyRunner(checkpoint, 1, RunnerConfig(execute=EXECUTE))
        runner.reset([observation["instruction"]])
        for _ in range(3):
            with torch.no_grad():
                chunk = policy.head.act(torch.from_numpy(seen))[:, :EXECUTE]
            for step in range(EXECUTE):
                action = runner.act([observation])[0]
                np.testing.assert_allclose(chunk[0, step].numpy(), action, atol=1e-5)
                observation, *_ = env.step(action)
            seen, *_ = worlds.step(chunk.flatten(1).numpy())
        worlds.close()
        env.close()

    def test_rewards_of_a_decision_are_added_up_until_the_end(self, cloned: Path) -> None:
        env = window(load_checkpoint(cloned))
        env.reset(seed=1)
        total, decisions, over = 0.0, 0, False
        while not over:
            _, reward, terminated, truncated, info = env.step(np.zeros(EXECUTE * 2, np.float32))
            total, decisions, over = total + reward, decisions + 1, terminated or truncated
        assert decisions == -(-find_task("track").horizon // EXECUTE)
        assert 0 <= total <= find_task("track").horizon
        assert set(info) == {"is_success"}
        env.close()

    def test_each_reset_draws_another_scene(self, cloned: Path) -> None:
        first, again = (window(load_checkpoint(cloned), seed) for seed in (5, 5))
        drawn = [first.reset()[0]["frames"] for _ in range(2)]
        assert (drawn[0] != drawn[1]).any()
        np.testing.assert_array_equal(drawn[0], again.reset()[0]["frames"])
        first.close()
        again.close()


class TestWhatLearns:
    @pytest.fixture
    def model(self, cloned: Path) -> AnchoredPPO:
        checkpoint = load_checkpoint(cloned)
        policy = checkpoint.policy.requires_grad_(False)
        features = policy.head.layers[0].in_features
        worlds = FeatureVecEnv(DummyVecEnv([lambda: window(checkpoint)]), policy, features)
        settings = {"net_arch": [], "head": policy.head, "execute": EXECUTE, "deviation": 0.2}
        torch.manual_seed(0)
        return AnchoredPPO(
            HeadPolicy, worlds, n_steps=6, batch_size=6, n_epochs=2, policy_kwargs=settings, device="cpu"
        )

    def test_it_begins_as_it_was_cloned(self, model: AnchoredPPO, cloned: Path) -> None:
        model.hold(0.1, 0, None)
        seen = model.get_env().reset()  # type: ignore[union-attr]
        head = load_checkpoint(cloned).policy.head
        expected = head.act(torch.from_numpy(seen))[:, :EXECUTE].flatten(1).detach().numpy()
        action, _ = model.predict(seen, deterministic=True)
        np.testing.assert_allclose(action, expected, atol=1e-6)
        assert model._divergence(torch.from_numpy(seen)).item() == 0

    def test_head_and_value_learn(self, model: AnchoredPPO) -> None:
        model.hold(0.1, 0, None)
        before = {name: value.clone() for name, value in model.policy.named_parameters()}
        model.learn(6)
        moved = {name for name, value in model.policy.named_parameters() if not torch.equal(value, before[name])}
        assert {"log_std", "action_net.head.layers.0.weight"} <= moved
        assert any(name.startswith("value_net") for name in moved)
        assert model.updates == 1
        assert set(model.last) == {"gain", "value", "divergence", "deviation", "reward"}

    def test_at_first_the_value_head_alone(self, model: AnchoredPPO) -> None:
        model.hold(0.1, 1, None)
        before = {name: value.clone() for name, value in model.policy.named_parameters()}
        model.learn(6)
        moved = {name for name, value in model.policy.named_parameters() if not torch.equal(value, before[name])}
        assert moved
        assert all(name.startswith("value_net") for name in moved)

    def test_an_anchor_holds_it(self, model: AnchoredPPO) -> None:
        """With nothing to gain, a head that was moved comes back, in the rehearsed states, too."""
        features = model.observation_space.shape[0]  # type: ignore[index]
        states = torch.randn(64, features)
        model.hold(1.0, 0, states)
        assert isinstance(model.policy, HeadPolicy)
        with torch.no_grad():
            model.policy.mean.head.layers[-1].bias.add_(0.3)
        before = model._divergence(states[:8]).item()
        optimizer = torch.optim.Adam(model.policy.mean.parameters(), 0.02)
        for _ in range(30):
            optimizer.zero_grad()
            model._divergence(states[:8]).backward()
            optimizer.step()
        assert model._divergence(states[:8]).item() < before / 10


class TestTheRun:
    def test_the_best_is_kept_with_the_eyes_it_had(self, cloned: Path, tmp_path: Path) -> None:
        done = finetune(TINY, "track", cloned, tmp_path / "run", runner=RunnerConfig(execute=EXECUTE))
        assert (done.step, done.interrupted) == (24, False)
        assert [row["step"] for row in done.rows] == [0, 12, 24]
        before, after = load_checkpoint(cloned), load_checkpoint(done.checkpoint)
        changed = {
            name
            for name, value in after.policy.state_dict().items()
            if not torch.equal(value, before.policy.state_dict()[name])
        }
        assert all(name.startswith("head.") for name in changed)
        assert after.provenance["finetuned"]["task"] == "track"
        assert not (tmp_path / "run/state").exists()
        for resume in (False, True):
            with pytest.raises(TrainingError, match="holds a run that is finished"):
                finetune(TINY, "track", cloned, tmp_path / "run", resume=resume)

    def test_an_interrupted_one_goes_on(self, cloned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        out, runner, stop = tmp_path / "run", RunnerConfig(execute=EXECUTE), Event()
        noted: dict[str, Any] = {}
        load = module._load_state

        def note(step: int, words: str) -> None:
            if step == 12 and words:
                stop.set()

        def load_and_note(file: Path, model: AnchoredPPO, worlds: Any) -> None:
            load(file, model, worlds)
            noted.update(step=model.num_timesteps, updates=model.updates)
            noted["weight"] = model.policy.state_dict()["action_net.head.layers.0.weight"].clone()
            noted["scenes"] = worlds.get_attr("scenes")

        monkeypatch.setattr(module, "interrupts", lambda _: nullcontext(stop))
        done = finetune(TINY, "track", cloned, out, runner=runner, on_progress=note)
        assert (done.interrupted, done.step) == (True, 12)  # nothing was learned from the two decisions after these
        stop.clear()
        with pytest.raises(TrainingError, match=r"finetune\.clip was 0\.2 and is now 0\.1"):
            finetune(replace(TINY, clip=0.1), "track", cloned, out, runner=runner, resume=True)
        monkeypatch.setattr(module, "_load_state", load_and_note)
        done = finetune(TINY, "track", cloned, out, runner=runner, resume=True)
        assert (noted["step"], noted["updates"], noted["scenes"]) == (12, 1, [1, 1])
        assert not torch.equal(noted["weight"], load_checkpoint(cloned).policy.head.layers[0].weight)
        assert done.step == 24
        assert [row["step"] for row in done.rows][:2] == [0, 12]

    def test_a_terminals_interrupt_saves_the_state(self, cloned: Path, tmp_path: Path) -> None:
        """It reaches the processes of the environments, too."""
        out = tmp_path / "run"
        settings = {"steps": 4000, "envs": 2, "decisions": 8, "batch": 8, "episodes": 1, "warmup": 0, "judge_every": 1}
        arguments = [f"--finetune.{name}={value}" for name, value in settings.items()]
        command = [sys.executable, "-m", "vla_policy.cli", "finetune", str(cloned), "--out", str(out), *arguments]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
        while not (out / "state").is_file():
            assert process.poll() is None, "ended before it was interrupted"
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        told, _ = process.communicate(timeout=60)
        assert process.returncode == 130
        assert re.search(r"interrupted after \d+ decisions; go on with --resume", told)
        assert torch.load(out / "state", weights_only=True)["step"] % 16 == 0

    def test_one_that_learned_nothing_may_begin_anew(
        self, cloned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out, runner = tmp_path / "run", RunnerConfig(execute=EXECUTE)

        def interrupt(*_: Any) -> int:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(module, "judge", interrupt)
            with pytest.raises(KeyboardInterrupt):
                finetune(TINY, "track", cloned, out, runner=runner)
        with pytest.raises(TrainingError, match="no saved state to resume; begin without --resume"):
            finetune(TINY, "track", cloned, out, runner=runner, resume=True)
        assert finetune(replace(TINY, steps=12), "track", cloned, out, runner=runner).step == 12

    def test_networks_that_are_not_finite_are_named(self, cloned: Path, tmp_path: Path) -> None:
        config = replace(TINY, learning_rate=1e30)
        with pytest.raises(TrainingError, match=r"has diverged.* a lower finetune\.learning_rate"):
            finetune(config, "track", cloned, tmp_path / "run", runner=RunnerConfig(execute=EXECUTE))

    @pytest.mark.filterwarnings("ignore:You have specified a mini-batch")  # that does not divide the decisions
    def test_a_last_batch_of_one_decision_teaches(self, cloned: Path, tmp_path: Path) -> None:
        config = replace(TINY, steps=3, envs=1, decisions=3, batch=2)
        done = finetune(config, "track", cloned, tmp_path / "run", runner=RunnerConfig(execute=EXECUTE))
        assert np.isfinite(done.rows[-1]["divergence"])

    def test_a_damaged_state_is_named(self, cloned: Path, tmp_path: Path) -> None:
        runner = RunnerConfig(execute=EXECUTE)
        finetune(TINY, "track", cloned, tmp_path / "run", runner=runner)
        (tmp_path / "run/state").write_bytes(b"nothing")
        with pytest.raises(TrainingError, match="not a state of this run"):
            finetune(TINY, "track", cloned, tmp_path / "run", runner=runner, resume=True)

    def test_demonstrations_are_rehearsed(
        self, cloned: Path, tmp_path: Path, write_small: Callable[..., Dataset], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "REHEARSED", 64)
        checkpoint = load_checkpoint(cloned)
        config = CollectConfig(episodes=1, size=checkpoint.policy.shapes.size, noise=0.0, detours=0.0)
        training.collect._prepare(Pulse(multiprocessing), ("track", config, tmp_path), ExitStack())(0)
        data = open_dataset(tmp_path / "00000")
        run = module._Run(TINY, "track", cloned, tmp_path / "run", RunnerConfig(execute=EXECUTE), (data,), False, None)
        states = run._rehearsed(checkpoint.policy.eval())
        assert states is not None
        assert states.shape == (64, checkpoint.policy.head.layers[0].in_features)
        assert states.std(0).max() > 0
        with pytest.raises(ValueError, match=r"agent_pos_names of .* differ"):
            finetune(TINY, "track", cloned, tmp_path / "other", datasets=(write_small("other"),))


class TestCommand:
    def test_it_says_what_it_gained(
        self, cloned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = [f"--finetune.{name}={value}" for name, value in (("steps", 12), ("envs", 2), ("decisions", 6))]
        settings += ["--finetune.processes=false", "--finetune.episodes=1", "--finetune.epochs=1"]
        settings += ["--finetune.warmup=0", "--finetune.batch=6"]
        out = tmp_path / "run"
        assert main(["finetune", str(cloned), "--out", str(out), *settings]) == 0
        assert "of 1 validation episodes" in capsys.readouterr().out
        assert json.loads((out / "log.jsonl").read_text().splitlines()[0])["step"] == 0
        assert main(["finetune", str(cloned), "--out", str(out), *settings]) == 2
        assert "holds a run that is finished" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--tasks", "track,reach"], "name one with --tasks"),
            (["--tasks", "reach"], "needs action 'dz'"),
            (["--eval.runner.execute", "5"], "exceeds the policy's chunk of 4 steps"),
            (["--finetune.steps", "2048"], "make 2 updates of 4 times 256 decisions"),
            (["--finetune.batch", "1"], "finetune.batch, must be 2 or more"),
            (["--eval.runner.ensemble", "0.1", "--eval.runner.execute", "1"], "ensemble"),
        ],
    )
    def test_what_cannot_be(
        self, arguments: list[str], words: str, cloned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["finetune", str(cloned), "--out", str(tmp_path / "run"), *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("vla: ")
        assert words in error

    def test_other_heads_are_refused(self, cloned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        made = load_checkpoint(cloned)
        config = replace(made.policy.config, head=HeadConfig(name="binned", chunk=2, hidden=8))
        policy = VLAPolicy(config, made.policy.shapes)
        policy.normaliser.load_state_dict(made.policy.normaliser.state_dict())
        save_checkpoint(Checkpoint(policy, made.tokenizer, made.purpose, {}), tmp_path / "binned")
        assert main(["finetune", str(tmp_path / "binned"), "--out", str(tmp_path / "run")]) == 2
        assert "action head 'binned' behind fusion 'bidirectional' cannot go on" in capsys.readouterr().err
