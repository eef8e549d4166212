"""A cloned policy goes on by proximal policy optimisation (Schulman et al. 2017), with Stable-Baselines3.

What sees, reads and fuses stays as it was cloned, so that the features of each state are computed once; the action
head learns, and a value head beside it. A divergence from the cloned head keeps what was learned before.

OUT/config.json   checkpoint, task and settings
OUT/log.jsonl     a row for each judgement on validation scenes
OUT/state         what --resume goes on from
OUT/checkpoint    the best policy so far, the cloned one at first

B batch, F features, E control steps that are executed of a chunk, A actions.
"""

from __future__ import annotations

import copy
import json
import os
import signal
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv
from torch import Tensor, nn

from configs.disk import filling
from configs.evaluation import RunnerConfig
from configs.interface import check_policy_serves
from configs.reading import parse_json
from configs.reinforcement import FinetuneConfig
from envs.task import Env, TaskSpec, find_task, make_task
from training.data.batches import SampleConfig, Sampler
from training.data.episodes import Dataset
from training.error import TrainingError
from training.interrupts import interrupts
from training.lock import hold_folder
from training.provenance import fingerprint
from training.reinforcement.follower import Follower, diverging
from training.reinforcement.judgements import CONFIG, Judgements, check_used, judge, write_text
from training.reinforcement.ppo import AnchoredPPO, HeadPolicy
from training.reinforcement.window import FeatureVecEnv, WindowEnv, features_of
from training.run_folder import CHECKPOINT
from training.start import check_shapes, load_start, weights_print
from vla_policy.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from vla_policy.heads.chunk_l1 import ChunkL1Head
from vla_policy.runner import PolicyActor, PolicyRunner

STATE = "state"
ROWS = 10  # episodes of a judgement side by side
REHEARSED = 4_096  # samples of the demonstrations, in whose states the head is held to what it was
FIRST_COLLECTION = 20_000  # the seeds of its scenes: those of demonstrations begin at 0 and stay small

OnProgress = Callable[[int, str], None]  # decisions, and what there is to say, if anything


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """How a call ended: decisions, the judgements, and whether it was interrupted."""

    checkpoint: Path
    step: int
    rows: list[dict[str, Any]]
    interrupted: bool


def finetune(
    config: FinetuneConfig,
    task: str,
    start: Path,
    out: Path,
    *,
    runner: RunnerConfig | None = None,
    datasets: tuple[Dataset, ...] = (),
    resume: bool = False,
    on_progress: OnProgress | None = None,
) -> Finetuned:
    """Let a policy go on learning in a task.

    Args:
        start: folder of the cloned policy's checkpoint.
        runner: how chunks are executed.
        datasets: demonstrations in whose states, too, the policy is held to what it was.

    Raises:
        ValueError: the policy cannot act in the task, or has an action head without a mean.
        TrainingError: `out` is taken, or there is nothing to resume.
        LockedError: another process writes into `out`.
    """
    with hold_folder(out):
        return _Run(config, task, start, out, runner or RunnerConfig(), datasets, resume, on_progress).go()


class _Run:
    def __init__(
        self,
        config: FinetuneConfig,
        task: str,
        start: Path,
        out: Path,
        runner: RunnerConfig,
        datasets: tuple[Dataset, ...],
        resume: bool,
        on_progress: OnProgress | None,
    ) -> None:
        self._config, self._spec, self._out, self._on_progress = config, find_task(task), out, on_progress
        self._runner, self._resume, self._datasets, self._start = runner, resume, datasets, start
        self._checkpoint = checkpoint = load_start(start, datasets)
        check_policy_serves(checkpoint.interface, self._spec.interface, task, ", ".join(checkpoint.purpose.tasks))
        if not isinstance(checkpoint.policy.head, ChunkL1Head):
            name, fusion = checkpoint.policy.config.head.name, checkpoint.policy.config.fusion.name
            raise ValueError(
                f"{start}: action head {name!r} behind fusion {fusion!r} cannot go on by reinforcement; it takes one "
                "head 'chunk_l1', behind any fusion but 'vote'"
            )
        if runner.ensemble is not None:
            raise ValueError("eval.runner.ensemble: decisions overlap then; leave it out to learn by reinforcement")
        if runner.execute > checkpoint.policy.config.head.chunk:
            raise ValueError(
                f"eval.runner.execute {runner.execute} exceeds the policy's chunk of "
                f"{checkpoint.policy.config.head.chunk} steps"
            )
        described = {
            "task": task,
            "version": self._spec.version,
            "start": weights_print(start),
            "finetune": asdict(config),
            "runner": asdict(runner),
            "data": [fingerprint(data) for data in datasets],
        }
        self._described = json.loads(json.dumps(described))
        _check_folder(out, self._described, resume)
        self._judgements = Judgements(out, resume=resume)

    def go(self) -> Finetuned:
        config, out, policy = self._config, self._out, self._checkpoint.policy.eval()
        for parameter in policy.parameters():
            parameter.requires_grad_(False)
        assert isinstance(policy.head, ChunkL1Head)
        first = next(layer for layer in policy.head.layers if isinstance(layer, nn.Linear))
        with closing(FeatureVecEnv(self._worlds(), policy, first.in_features)) as worlds:
            set_random_seed(config.seed)  # given to the algorithm, it would choose the first scenes, too
            model = AnchoredPPO(
                HeadPolicy,
                worlds,
                learning_rate=config.learning_rate,
                n_steps=config.decisions,
                batch_size=min(config.batch, config.decisions * config.envs),
                n_epochs=config.epochs,
                gamma=config.discount,
                gae_lambda=config.smoothing,
                clip_range=config.clip,
                policy_kwargs={
                    "net_arch": [],
                    "head": policy.head,
                    "execute": self._runner.execute,
                    "deviation": config.deviation,
                },
                device="cpu",
            )
            model.hold(config.anchor, config.warmup, self._rehearsed(policy), seed=config.seed)
            if self._resume:
                _load_state(out / STATE, model, worlds)
                self._judgements.forget_after(model.num_timesteps)
            write_text(out / CONFIG, json.dumps(self._described, indent=2) + "\n")
            if not self._judgements.rows:
                self._judge(model)
            with interrupts(os.getppid()) as stop:
                follower = Follower(stop.is_set, at_round=lambda: self._after(model))
                left = max(config.steps - model.num_timesteps, 0)
                if left:
                    with diverging(model, "finetune.learning_rate"):
                        model.learn(left, callback=follower, reset_num_timesteps=False)
                interrupted = stop.is_set() and model.num_timesteps < config.steps
            if interrupted:
                _save_state(out / STATE, model, worlds)
                model.num_timesteps = model.learned_from
            else:
                if self._judgements.newest_step() < model.num_timesteps:
                    self._judge(model)
                (out / STATE).unlink(missing_ok=True)
        return Finetuned(
            checkpoint=out / CHECKPOINT,
            step=int(model.num_timesteps),
            rows=self._judgements.rows,
            interrupted=interrupted,
        )

    def _worlds(self) -> VecEnv:
        makers = [self._maker(i) for i in range(self._config.envs)]
        return SubprocVecEnv(makers, start_method="forkserver") if self._config.processes else DummyVecEnv(makers)

    def _maker(self, index: int) -> Callable[[], Env]:
        task, start, execute = self._spec.name, self._start, self._runner.execute
        seed, apart = FIRST_COLLECTION + 100 * self._config.seed + index, self._config.processes

        def make() -> WindowEnv:
            if apart:  # a terminal sends its signals to all: this process ends when the learning one closes the pipe
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.SIG_IGN)
            torch.set_num_threads(1)
            checkpoint, spec = load_checkpoint(start), find_task(task)
            return WindowEnv(_make(spec, checkpoint), spec, checkpoint, execute, seed)

        return make

    def _rehearsed(self, policy: Any) -> Tensor | None:
        """Features of the demonstrations' states, (N, F)."""
        if not self._datasets:
            return None
        config, purpose = policy.config, self._checkpoint.purpose
        samples = SampleConfig(
            ages=config.ages,
            chunk=config.head.chunk,
            cameras=config.cameras,
            tubes=config.tubes,
        )
        names = list(purpose.action_names)
        sampler = Sampler(self._datasets, samples, self._checkpoint.tokenizer, names)
        check_shapes(self._start, policy.shapes, sampler.shapes(len(names), self._checkpoint.tokenizer.size))
        rng, size = np.random.default_rng(self._config.seed), 64
        batches = [sampler.batch(rng, size).observation for _ in range(REHEARSED // size)]
        return torch.from_numpy(np.concatenate([features_of(policy, each) for each in batches]))

    def _after(self, model: AnchoredPPO) -> None:
        """Called before each round of decisions, and so after each update."""
        updates = model.updates
        judged = self._judgements.newest_step()
        if updates and updates % self._config.judge_every == 0 and judged < model.num_timesteps:
            self._judge(model)
            env = model.get_env()
            assert env is not None
            _save_state(self._out / STATE, model, env)
        elif self._on_progress:
            self._on_progress(int(model.num_timesteps), "")

    def _judge(self, model: AnchoredPPO) -> None:
        """Success on validation scenes; the policy is kept if it is the best so far."""
        assert isinstance(model.policy, HeadPolicy)
        learned = copy.deepcopy(self._checkpoint.policy)
        learned.head.load_state_dict(model.policy.mean.head.state_dict())
        origin = {
            **self._checkpoint.provenance,
            "finetuned": {**self._described, "decisions": int(model.num_timesteps)},
        }
        checkpoint = Checkpoint(learned, self._checkpoint.tokenizer, self._checkpoint.purpose, origin)
        envs = [_make(self._spec, checkpoint) for _ in range(min(ROWS, self._config.episodes))]
        actor = PolicyActor(PolicyRunner(checkpoint, len(envs), self._runner))
        successes = judge(envs, actor, self._spec, self._config.episodes)
        row = {
            "step": int(model.num_timesteps),
            "successes": successes,
            "episodes": self._config.episodes,
            **model.last,
        }
        self._judgements.add(row, lambda: save_checkpoint(checkpoint, self._out / CHECKPOINT), ties=False)
        if self._on_progress:
            words = f"{successes} of {self._config.episodes} validation episodes after {row['step']}"
            self._on_progress(int(model.num_timesteps), words)


def _make(spec: TaskSpec, checkpoint: Checkpoint) -> Env:
    config = checkpoint.policy.config
    return make_task(spec.name, cameras=config.cameras, size=checkpoint.policy.shapes.size, labels=False)


def _check_folder(out: Path, described: dict[str, Any], resume: bool) -> None:
    check_used(out, out / STATE, resume)
    if not resume:
        return
    try:
        before = parse_json((out / CONFIG).read_text())
        changed = [
            f"{part}.{name} was {before[part][name]!r} and is now {value!r}"
            for part in ("finetune", "runner")
            for name, value in described[part].items()
            if before[part][name] != value and (part, name) not in (("finetune", "steps"), ("finetune", "processes"))
        ]
        changed += [
            f"{name} is another one now"
            for name in ("task", "version", "start", "data")
            if before[name] != described[name]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{out / CONFIG}: not readable ({error}); begin anew elsewhere") from None
    if changed:
        raise TrainingError(f"{out}: {changed[0]}; give the same again")


def _save_state(file: Path, model: AnchoredPPO, worlds: VecEnv) -> None:
    """Decisions since the last update are not kept: nothing was learned from them yet."""
    values = {
        "step": model.learned_from,
        "updates": model.updates,
        "scenes": [int(scenes) for scenes in worlds.get_attr("scenes")],
        "policy": model.policy.state_dict(),
        "optimizer": model.policy.optimizer.state_dict(),
        "last": model.last,
    }
    partial = file.with_name(f".{file.name}.partial")
    try:
        with filling(file, "A state saved before is kept"):
            torch.save(values, partial)
            os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def _load_state(file: Path, model: AnchoredPPO, worlds: VecEnv) -> None:
    """Put a saved state back in place. Episodes that were under way begin anew, in the next scenes.

    Raises:
        TrainingError: it is damaged, or of another run.
    """
    try:
        # weights_only reads tensors and plain values and executes nothing.
        values = torch.load(file, map_location="cpu", weights_only=True)
        model.policy.load_state_dict(values["policy"])
        model.policy.optimizer.load_state_dict(values["optimizer"])
        model.num_timesteps, model.updates, model.last = values["step"], values["updates"], values["last"]
        for index, scenes in enumerate(values["scenes"]):
            worlds.set_attr("scenes", scenes, indices=index)
    except Exception as error:  # noqa: BLE001 - torch raises many kinds; all mean the same to the user
        reason = str(error).splitlines()[-1].strip() if str(error) else type(error).__name__
        raise TrainingError(f"{file}: not a state of this run ({reason}); begin anew elsewhere") from None
