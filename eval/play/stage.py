"""One world for one person: a task, who acts in it, and what he is told. It is stepped from outside, in one thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from configs.evaluation import RunnerConfig
from configs.seeds import split_seed
from envs.actors import ExpertActor
from envs.contract import check_contract
from envs.guessing import guess_task
from envs.rollout import Actor, Rollout, Scenario, World
from envs.task import Env, TaskSpec, find_task, make_task, offers
from eval.acting import make_task_for
from eval.play.policies import EXPERT, Policies
from eval.report.attention import Heat
from eval.report.episode_video import Shot, picture_of, row_of, shot_of, word_heats_of
from eval.words import check_instruction
from vla_policy.contract import Aux
from vla_policy.runner import PolicyActor, PolicyRunner

SEEN = 64  # pixels a side of the pictures that nobody but the page looks at, where an expert acts


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How an episode stands.

    Args:
        step, horizon: control steps, done and at most.
        target: what the words mean, "" if nobody can tell.
        distance: of the hand from it, metres; None if unknown. Horizontal where the task has a tolerance.
        verdict: how it ended, beginning with "success" or "failure"; "" before the end.
    """

    step: int
    horizon: int
    target: str
    distance: float | None
    verdict: str


class Stage:
    """A world that goes on step by step, and in which everything can be changed between two steps.

    Args:
        policies: who can act, beside the expert.
        picture: side of the pictures in pixels.

    Nothing can be asked of it before the first `choose`. `shot` is the moment that was drawn last, as it was when its
    action was decided, and `heats` what each word looked at then; a step renews them if `wants_shot`.
    """

    shot: Shot
    heats: dict[str, Heat]

    def __init__(self, policies: Policies, picture: int) -> None:
        self._policies, self._picture = policies, picture
        self._env: Env | None = None
        self._held: dict[int, np.ndarray] = {}
        self.seed = 0
        self.wants_shot = True

    # What is there.

    @property
    def is_set(self) -> bool:
        """Whether there is a world yet."""
        return self._env is not None

    @property
    def env(self) -> Env:
        assert self._env is not None, "choose() comes first"
        return self._env

    @property
    def world(self) -> World:
        return self._rollout.worlds[0]

    @property
    def done(self) -> bool:
        return self._rollout.done

    @property
    def meant(self) -> int | None:
        """The thing that the words mean, None if nobody can tell."""
        if not self._understood:
            return None
        target = self.world.info.get("privileged", {}).get("target")
        return target if self.world.named is None else self.world.named

    @property
    def examples(self) -> tuple[str, ...]:
        """Words that mean something in this scene, the task's own first."""
        instructions = offers(self.env, "instructions")
        said = () if instructions is None else instructions(np.random.default_rng(self.seed))
        return tuple(dict.fromkeys(text for text in (self.world.task_instruction, *said) if text))

    @property
    def standing(self) -> Standing:
        return Standing(
            step=self.world.step,
            horizon=self.spec.horizon,
            target=self._target(),
            distance=self._distance(),
            verdict=self._verdict() if self.done else "",
        )

    def places(self) -> dict[int, np.ndarray]:
        """Where the things are that can be moved, (3,) metres each."""
        movable = offers(self.env, "movable")
        return {} if movable is None else movable()

    # What people do.

    def choose(self, task: str, who: str) -> None:
        """Another task, another actor, or both; the words are the task's again. If that cannot be, all stays as it is.

        Raises:
            ValueError: the task or the actor is unknown, or they do not go together.
        """
        spec = find_task(task)
        checkpoint = None if who == EXPERT else self._policies.load(who)
        actor: Actor
        runner = None
        if checkpoint is None:
            actor = ExpertActor(spec.make_expert())
            env = _make_for_expert(spec)
        else:
            execute = min(RunnerConfig().execute, checkpoint.policy.config.head.chunk)
            runner = PolicyRunner(checkpoint, 1, RunnerConfig(execute=execute))
            actor = PolicyActor(runner)
            env = make_task_for(checkpoint, spec)
        self.close()
        self._env, self.spec, self.who, self.checkpoint, self.runner = env, spec, who, checkpoint, runner
        self._actor = actor
        self.camera = spec.cameras[0] if checkpoint is None else checkpoint.policy.config.cameras[0]
        self._said: str | None = None
        self._options: dict[str, Any] = {}
        self.restart(self.seed)

    def check(self, task: str, who: str, words: str) -> None:
        """Begin once and end, so that what cannot be comes to light before anybody waits for it.

        Raises:
            ValueError: as in `choose` and `say`.
        """
        try:
            self.choose(task, who)
            if words:
                self.say(words)
        finally:
            self.close()

    def restart(self, seed: int) -> None:
        """A scene from its beginning. Words that somebody said hold on: the scene has what they name.

        Raises:
            ValueError: there is no such seed.
        """
        drawn = split_seed("test", seed)
        self._held.clear()
        self._changes: dict[str, None] = {}
        self._understood = self._said is None or bool(self._options)
        self.seed = seed
        self._rollout = Rollout(
            [self.env],
            [drawn],
            self._actor,
            [_Watcher(self)],
            action_names=self.spec.action_names,
            scenario=Scenario(options=self._options, instruction=self._said),
        )
        self.look()

    def say(self, text: str) -> str:
        """Tell the one who acts something else. If the scene has what the words name, he obeys at once; else a new
        scene begins that has it, of another task if the words are for one. What the task cannot read, a policy tries.

        Returns what became of it in one sentence, "" if nothing is worth saying.

        Raises:
            ValueError: nobody here can read the words; those from before hold on.
        """
        text = " ".join(text.split())
        if not text:
            raise ValueError("nothing was said; type an instruction")
        notice = "" if self.checkpoint is None else check_instruction(self.checkpoint.tokenizer, text)
        try:
            options = self.spec.read(text)
        except ValueError as mistake:
            told = self._say_unread(text, mistake)
        else:
            find = offers(self.env, "named")
            named = None if find is None else find(options)
            self._said, self._options, told = text, options, ""
            if named is not None and not self.done:
                self._obey(text, named)
            else:
                told = "" if named is not None else "a new scene began, which has what you named"
                self.restart(self.seed)
        return "; ".join(filter(None, [told, notice]))

    def _say_unread(self, text: str, mistake: ValueError) -> str:
        """Words that the task does not know: those of another task of the policy's, or something for it to try."""
        if self.checkpoint is None:
            raise mistake
        try:
            task = guess_task(text, self.checkpoint.purpose.tasks)
        except ValueError:
            self._said, self._options = text, {}
            self._obey(text, None)
            return f"the policy tries, but nobody can tell what is meant: {mistake}"
        self.choose(task, self.who)
        self._said, self._options = text, self.spec.read(text)
        self.restart(self.seed)
        return f"these are words for the task {task}, which began"

    def _obey(self, text: str, named: int | None) -> None:
        self.world.instruction, self.world.named = text, named
        self._understood = named is not None
        if self.world.step:
            self._changes["other words on the way"] = None

    def hold(self, thing: int, place: np.ndarray) -> None:
        """Put a thing somewhere (3,) metres, and keep it there until it is let go."""
        if thing in self.places() and not self.done:
            self._held[thing] = place
            self._changes["moved by hand"] = None
            offers(self.env, "move_thing")(thing, place)

    def let_go(self, thing: int) -> None:
        self._held.pop(thing, None)

    def step(self) -> None:
        """One control step; nothing once the episode is over.

        Raises:
            EpisodeError: the environment failed.
        """
        if self.done:
            return
        for thing, place in self._held.items():
            offers(self.env, "move_thing")(thing, place)
        self._rollout.step()

    def look(self, action: np.ndarray | None = None, aux: Aux | None = None) -> None:
        """Draw the moment as it is now, with what is decided about it."""
        world, camera = self.world, self.camera
        self.shot = shot_of(world, camera, picture_of(world, camera, self._picture), aux, action)

    def close(self) -> None:
        if self._env is not None:
            self._env.close()
            self._env = None

    # Inside.

    def _target(self) -> str:
        """What the words mean, for people."""
        names = self.world.info.get("privileged", {}).get("objects", ())
        if self.meant is None:
            return ""
        if self.world.named is None:
            return str(offers(self.env, "target_name") or "")
        return names[self.meant] if self.meant < len(names) else "what you named"

    def _distance(self) -> float | None:
        """Of the hand from what the words mean, metres; None if unknown."""
        hand = self.world.info.get("privileged", {}).get("hand")
        place = None if self.meant is None else self.places().get(self.meant)
        if hand is None or place is None:
            return None
        axes = 3 if self.spec.tolerance is None else 2
        return float(np.linalg.norm(np.subtract(place, hand)[:axes]))

    def _verdict(self) -> str:
        world, judge = self.world, offers(self.env, "judge")
        if not world.info.get("stable", True):
            return "failure: unstable simulation"
        if not self._understood or (world.named is not None and judge is None):
            return "over; nobody can tell whether it was done"
        success = bool(world.info["is_success"] if world.named is None else judge(world.named))
        diagnosis = offers(self.env, "diagnosis") if world.named is None else None
        why = "" if success or diagnosis is None else f": {diagnosis() or 'not done in time'}"
        changes = f" ({', '.join(self._changes)})" if self._changes else ""
        return f"{'success' if success else 'failure'}{why}{changes}"


class _Watcher:
    """Keeps a stage's `shot` and `heats` up to date, as a recorder of its rollout."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def begin(self, world: World) -> None:
        self._stage.heats = {}

    def step(self, world: World, action: np.ndarray) -> None:
        stage = self._stage
        if not stage.wants_shot:
            return
        aux = None
        if stage.runner is not None and stage.runner.chunk is not None and stage.checkpoint is not None:
            aux = row_of(stage.runner.chunk.aux, world.row)
            if stage.runner.fresh and aux.location is not None:
                stage.heats = word_heats_of(stage.checkpoint, aux, world.instruction)
        stage.look(action, aux)

    def end(self, world: World) -> None:
        self._stage.look()


def _make_for_expert(spec: TaskSpec) -> Env:
    """A task's environment with its first camera, held against its description once."""
    cameras = spec.cameras[:1]
    env = make_task(spec.name, cameras=cameras, size=SEEN, on_demand=True)
    try:
        check_contract(env, spec, cameras, SEEN)
    except BaseException:
        env.close()
        raise
    return env
