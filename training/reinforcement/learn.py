"""Soft actor-critic of Stable-Baselines3 on a task's state and dense reward, judged on validation scenes as it learns.

OUT/config.json   task and settings
OUT/log.jsonl     a row for each judgement
OUT/state         what --resume goes on from
OUT/expert        the best expert so far
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv

from configs.disk import whole_folder
from configs.reading import parse_json
from configs.reinforcement import RLConfig
from envs.actors import ExpertActor
from envs.task import Env, TaskSpec, find_task, make_task
from envs.wrappers import StateObservation
from training.error import TrainingError
from training.interrupts import interrupts
from training.lock import hold_folder
from training.reinforcement.expert import EXPERT, Learned, LearnedExpert, save_expert
from training.reinforcement.follower import Follower, diverging
from training.reinforcement.judgements import CONFIG, Judgements, check_used, judge, write_text

STATE = "state"
STATE_FILE = "state.pt"
MEMORY = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")  # of the replay buffer
NOISE = 0.2  # standard deviation of the noise on demonstrations, 1 being full speed
SMALL = 32  # pixels a side, of tasks that must draw

OnProgress = Callable[[int, str], None]  # control steps, and what there is to say, if anything


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a call ended: the expert's folder, control steps, best successes of so many episodes, and whether it was
    interrupted.
    """

    expert: Path
    step: int
    successes: int
    episodes: int
    interrupted: bool


def learn(
    config: RLConfig, task: str, out: Path, *, resume: bool = False, on_progress: OnProgress | None = None
) -> Outcome:
    """Learn an expert for a task.

    Raises:
        TrainingError: `out` is taken, or there is nothing to resume.
        ValueError: the task does not offer its state.
        LockedError: another process learns into `out`.
    """
    with hold_folder(out):
        return _Run(config, find_task(task), out, resume, on_progress).go()


class _Run:
    def __init__(
        self, config: RLConfig, spec: TaskSpec, out: Path, resume: bool, on_progress: OnProgress | None
    ) -> None:
        self._config, self._spec, self._out, self._on_progress = config, spec, out, on_progress
        self._described = {"task": spec.name, "version": spec.version, "rl": asdict(config)}
        _check_folder(out, self._described, resume)
        self._resume = resume
        self._judgements = Judgements(out, resume=resume)

    def go(self) -> Outcome:
        config, out = self._config, self._out
        torch.set_num_threads(config.threads)
        with closing(DummyVecEnv([self._maker(i) for i in range(config.envs)])) as worlds:
            set_random_seed(config.seed)  # given to the algorithm, it would choose the first scenes, too
            model = SAC(
                "MlpPolicy",
                worlds,
                learning_rate=config.learning_rate,
                buffer_size=config.memory,
                learning_starts=config.warmup,
                batch_size=config.batch,
                gamma=config.discount,
                train_freq=1,
                gradient_steps=max(round(config.updates * config.envs), 1),
                policy_kwargs={"net_arch": list(config.hidden)},
                device="cpu",
            )
            model.action_space.seed(config.seed)
            if self._resume:
                _load_state(out / STATE, model, worlds)
                self._judgements.forget_after(model.num_timesteps)
            else:
                self._demonstrate(model, worlds)
            write_text(out / CONFIG, json.dumps(self._described, indent=2) + "\n")
            with interrupts(os.getppid()) as stop:
                follower = Follower(stop.is_set, at_step=lambda: self._after(model))
                left = max(config.steps - model.num_timesteps, 0)
                if left:
                    with diverging(model, "rl.learning_rate"):
                        model.learn(left, callback=follower, reset_num_timesteps=False)
                interrupted = stop.is_set() and model.num_timesteps < config.steps
            if not interrupted:
                if self._judgements.newest_step() < model.num_timesteps:
                    self._judge(model)
                shutil.rmtree(out / STATE, ignore_errors=True)
            else:
                _save_state(out / STATE, model)
        return Outcome(
            expert=out / EXPERT,
            step=int(model.num_timesteps),
            successes=max(self._judgements.best, 0),
            episodes=config.episodes,
            interrupted=interrupted,
        )

    def _demonstrate(self, model: SAC, worlds: DummyVecEnv) -> None:
        """Let the memory begin with what the task's own expert does, with some noise on it (Vecerik et al. 2017)."""
        count = -(-self._config.demonstrations // self._config.envs)
        if not count:
            return
        experts = [self._spec.make_expert() for _ in worlds.envs]
        rng, memory, space = np.random.default_rng(self._config.seed), model.replay_buffer, model.action_space
        assert memory is not None
        seen: Any = worlds.reset()
        for step in range(count):
            clean = [
                expert(world.env, world.told)  # type: ignore[attr-defined]
                for expert, world in zip(experts, worlds.envs, strict=True)
            ]
            scaled = model.policy.scale_action(np.array(clean, np.float32))
            scaled = np.clip(scaled + NOISE * rng.standard_normal(scaled.shape), -1, 1).astype(space.dtype)
            after: Any
            after, rewards, dones, infos = worlds.step(model.policy.unscale_action(scaled))
            ended = np.array(after)
            for i in np.flatnonzero(dones):
                ended[i] = infos[i]["terminal_observation"]
            memory.add(seen, ended, scaled, rewards, dones, infos)
            seen = after
            if self._on_progress and step % 100 == 0:
                done = min(step * self._config.envs, self._config.demonstrations)
                self._on_progress(0, f"demonstrations: {done} of {self._config.demonstrations} steps")

    def _maker(self, index: int) -> Callable[[], gymnasium.Env[Any, Any]]:
        # Seeds that no collection of demonstrations has: those begin at 0 and stay small.
        return lambda: StateObservation(self._make(), seed=10_000 + 100 * self._config.seed + index)

    def _make(self) -> Env:
        drawn = () if "no_cameras" in self._spec.takes else self._spec.cameras[:1]
        return make_task(self._spec.name, cameras=drawn, size=SMALL, labels=False)

    def _after(self, model: SAC) -> None:
        """Called after each control step of all environments."""
        every, envs = self._config.judge_every, self._config.envs
        if model.num_timesteps // every > (model.num_timesteps - envs) // every:
            self._judge(model)
            _save_state(self._out / STATE, model)
        elif self._on_progress:
            self._on_progress(int(model.num_timesteps), "")

    def _judge(self, model: SAC) -> None:
        """Success on validation scenes; the expert is kept if it is the best so far."""
        learned = _learned(model, self._spec.name, {**self._described, "step": int(model.num_timesteps)})
        actor = ExpertActor(LearnedExpert(learned))
        successes = judge([self._make()], actor, self._spec, self._config.episodes)
        row: dict[str, Any] = {"step": int(model.num_timesteps), "successes": successes}
        row |= {"episodes": self._config.episodes, "reward": self._reward(model), "time": round(time.time())}
        self._judgements.add(row, lambda: save_expert(learned, self._out / EXPERT), ties=True)
        if self._on_progress:
            words = f"{successes} of {self._config.episodes} validation episodes at step {row['step']}"
            self._on_progress(int(model.num_timesteps), words)

    def _reward(self, model: SAC) -> float:
        """The mean of the control steps since the last judgement, as far as they are remembered."""
        memory, since = model.replay_buffer, self._config.judge_every // self._config.envs
        assert memory is not None
        newest = np.arange(memory.pos - min(since, memory.pos), memory.pos)
        return round(float(memory.rewards[newest].mean()), 4) if len(newest) else 0.0


def _learned(model: SAC, task: str, origin: Mapping[str, Any]) -> Learned:
    """The actor's mean as a network of its own."""
    layers = [each for each in (*model.actor.latent_pi, model.actor.mu) if isinstance(each, torch.nn.Linear)]
    weights = {
        f"{i}.{name}": value.detach().clone()
        for i, each in enumerate(layers)
        for name, value in each.named_parameters()
    }
    widths = (layers[0].in_features, *(each.out_features for each in layers))
    return Learned(task=task, widths=widths, weights=weights, origin=origin)


def _check_folder(out: Path, described: dict[str, Any], resume: bool) -> None:
    check_used(out, out / STATE / STATE_FILE, resume)
    if not resume:
        return
    try:
        before = parse_json((out / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise TrainingError(f"{out / CONFIG}: not readable ({error}); learn anew elsewhere") from None
    now = json.loads(json.dumps(described))
    if not isinstance(before, dict) or not isinstance(before.get("rl"), dict):
        raise TrainingError(f"{out / CONFIG}: does not describe a run; learn anew elsewhere")
    if before.get("task") != now["task"] or before.get("version") != now["version"]:
        raise TrainingError(f"{out}: is a run of another task, or of another version of it; choose another --out")
    for name, value in now["rl"].items():
        was = before["rl"].get(name)
        if was != value and name not in ("steps", "threads"):
            raise TrainingError(f"{out}: rl.{name} was {was!r} and is now {value!r}; give the same again")


def _save_state(folder: Path, model: SAC) -> None:
    """Weights, optimisers and what is remembered; the state before is replaced once this one is whole."""
    memory = model.replay_buffer
    assert memory is not None
    filled = memory.buffer_size if memory.full else memory.pos
    with whole_folder(folder, "A state saved before is kept") as partial:
        for name in MEMORY:
            np.save(partial / f"{name}.npy", getattr(memory, name)[:filled])
        values = {
            "step": int(model.num_timesteps),
            "scenes": [int(scenes) for scenes in model.get_env().get_attr("scenes")],  # type: ignore[union-attr]
            "position": int(memory.pos),
            "policy": model.policy.state_dict(),
            "actor": model.actor.optimizer.state_dict(),
            "critic": model.critic.optimizer.state_dict(),
            "entropy": _entropy(model).detach().clone(),
            "entropy_optimizer": model.ent_coef_optimizer.state_dict(),  # type: ignore[union-attr]
        }
        torch.save(values, partial / STATE_FILE)


def _entropy(model: SAC) -> torch.Tensor:
    """The logarithm of the entropy's coefficient, which is learned, too."""
    assert model.log_ent_coef is not None
    return model.log_ent_coef


def _load_state(folder: Path, model: SAC, worlds: DummyVecEnv) -> None:
    """Put a saved state back in place. Episodes that were under way begin anew, in the next scenes.

    Raises:
        TrainingError: it is damaged, or of another run.
    """
    memory = model.replay_buffer
    assert memory is not None
    try:
        # weights_only reads tensors and plain values and executes nothing.
        values = torch.load(folder / STATE_FILE, map_location="cpu", weights_only=True)
        model.policy.load_state_dict(values["policy"])
        model.actor.optimizer.load_state_dict(values["actor"])
        model.critic.optimizer.load_state_dict(values["critic"])
        _entropy(model).data.copy_(values["entropy"])
        model.ent_coef_optimizer.load_state_dict(values["entropy_optimizer"])  # type: ignore[union-attr]
        for name in MEMORY:
            saved = np.load(folder / f"{name}.npy", allow_pickle=False)
            getattr(memory, name)[: len(saved)] = saved
        memory.pos, memory.full = values["position"], len(saved) == memory.buffer_size
        model.num_timesteps = values["step"]
        for world, scenes in zip(worlds.envs, values["scenes"], strict=True):
            world.scenes = scenes  # type: ignore[attr-defined]
    except Exception as error:  # noqa: BLE001 - torch and numpy raise many kinds; all mean the same to the user
        reason = str(error).splitlines()[-1].strip() if str(error) else type(error).__name__
        raise TrainingError(f"{folder}: not a state of this run ({reason}); learn anew elsewhere") from None
