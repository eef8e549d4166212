"""The one loop: what actors and recorders are told, when, and how episodes begin and end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from envs.actors import ExpertActor, ModelActor, NoisyExpert, RandomActor, RepeatingActor
from envs.rollout import EpisodeError, Rollout, Scenario, World, blank, run
from envs.tabletop.env import TabletopEnv
from envs.task import TaskSpec, find_task, make_task, use_task_modules
from envs.workers import NOTHING

MakeEnv = Callable[..., TabletopEnv]


class Watcher:
    """Notes what happens, in its order."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int, int]] = []
        self.actions: list[np.ndarray] = []
        self.pictures: list[np.ndarray] = []
        self.read: set[str] = set()

    def begin(self, world: World) -> None:
        self.told.append(("begin", world.row, world.step))

    def step(self, world: World, action: np.ndarray) -> None:
        self.told.append(("step", world.row, world.step))
        self.actions.append(action)
        self.pictures.append(next(iter(world.observation["pixels"].values())))
        self.read.add(world.instruction)

    def end(self, world: World) -> None:
        self.told.append(("end", world.row, world.step))


@pytest.fixture
def spec(foreign: Path) -> TaskSpec:
    use_task_modules([str(foreign)])
    return find_task("dots/labelled")


@pytest.fixture
def env(spec: TaskSpec) -> Any:
    return make_task(spec.name, cameras=("top",), size=32)


def play(env: Any, spec: TaskSpec, actor: Any, seed: int = 5, **options: Any) -> Watcher:
    watcher = Watcher()
    run([env], [seed], actor, [watcher], action_names=spec.action_names, **options)
    return watcher


def test_every_piece_of_work_is_a_beat_and_names_whose_it_is(env: Any, spec: TaskSpec) -> None:
    beats: list[int] = []
    play(env, spec, RandomActor(), beat=lambda seed=NOTHING: beats.append(seed))
    # The start and every step are the seed's own; what the actor does for all is nobody's.
    assert Counter(beats) == {5: spec.horizon + 1, NOTHING: spec.horizon + 1}
    assert beats[:3] == [5, NOTHING, NOTHING]


def test_a_recorder_sees_each_moment_before_the_step(make_env: MakeEnv) -> None:
    env, spec = make_env("reach", cameras=("front",), size=16), find_task("reach")
    moments: list[tuple[int, np.ndarray, np.ndarray]] = []

    class Moments(Watcher):
        def step(self, world: World, action: np.ndarray) -> None:
            assert world.step == env.step_count
            np.testing.assert_array_equal(env.picture("front", 16), world.observation["pixels"]["front"])
            moments.append((world.step, world.info["privileged"]["hand"], action))

    [world] = run([env], [5], RandomActor(), [Moments()], action_names=spec.action_names)
    assert [step for step, _, _ in moments] == list(range(world.step))
    env.reset(seed=5)
    for _, hand, action in moments[:20]:
        np.testing.assert_array_equal(env.privileged()["hand"], hand)
        env.step(action)


def test_rows_run_side_by_side_and_idle_ones_stay_so(spec: TaskSpec) -> None:
    envs = [make_task(spec.name, cameras=("top",), size=32) for _ in range(3)]
    asked: list[list[bool]] = []

    class Asked(RandomActor):
        def act(self, worlds: Sequence[World | None]) -> list[np.ndarray | None]:
            asked.append([world is not None for world in worlds])
            return super().act(worlds)

    watcher = Watcher()
    worlds = run(envs, [7, None, 8], Asked(), [watcher], action_names=spec.action_names)
    assert [(world.row, world.seed, world.step, world.done) for world in worlds] == [
        (0, 7, spec.horizon, True),
        (2, 8, spec.horizon, True),
    ]
    assert asked == [[True, False, True]] * spec.horizon
    assert watcher.told[:4] == [("begin", 0, 0), ("begin", 2, 0), ("step", 0, 0), ("step", 2, 0)]
    assert watcher.told[-1] == ("end", 2, spec.horizon)


def test_a_row_whose_episode_is_over_is_not_asked_again(make_env: MakeEnv) -> None:
    spec = find_task("reach")
    envs = [make_env("reach", cameras=("front",), size=16) for _ in range(2)]
    watcher = Watcher()
    worlds = run(envs, [1, 3], ExpertActor(spec.make_expert()), [watcher], action_names=spec.action_names)
    steps = [world.step for world in worlds]
    assert len(set(steps)) == 2  # or this test shows nothing
    counted = Counter((what, row) for what, row, _ in watcher.told)
    assert [counted["step", row] for row in (0, 1)] == steps
    assert [counted["end", row] for row in (0, 1)] == [1, 1]


def test_the_actor_reads_what_the_scenario_says(env: Any, spec: TaskSpec) -> None:
    plain = play(env, spec, RandomActor())
    told = play(env, spec, RandomActor(), scenario=Scenario(instruction="go home", view=blank))
    [words] = plain.read
    assert words.startswith("go to the")
    assert told.read == {"go home"}
    assert {int(value) for picture in told.pictures for value in np.unique(picture)} == {128}
    assert len(plain.pictures) == len(told.pictures)


def test_a_counterfactual_instruction_is_for_another_thing(make_env: MakeEnv) -> None:
    env, spec = make_env("track", cameras=("front",), size=16), find_task("track")
    [world] = run([env], [5], RandomActor(), action_names=spec.action_names, scenario=Scenario(counterfactual=True))
    assert world.named is not None
    assert world.named != env.layout.target
    assert world.instruction != world.task_instruction == env.instruction
    [plain] = run([env], [5], RandomActor(), action_names=spec.action_names)
    assert plain.named is None
    assert plain.instruction == world.task_instruction


def test_an_option_that_the_task_does_not_know_is_refused(make_env: MakeEnv) -> None:
    env, spec = make_env("track", cameras=("front",), size=16), find_task("track")
    with pytest.raises(EpisodeError, match=r"^seed 5: ValueError: reset options \['colour'\] are unknown"):
        run([env], [5], RandomActor(), action_names=spec.action_names, scenario=Scenario(options={"colour": "red"}))


class TestFailures:
    """What an environment or an expert gives in the middle of an episode that would be kept or judged wrongly."""

    def spoil(
        self, env: Any, step: int, seen: dict[str, Any] | None = None, info: dict[str, Any] | None = None
    ) -> None:
        original, done = env.unwrapped.step, []

        def spoiled(action: np.ndarray) -> Any:
            done.append(1)
            observation, *rest, told = original(action)
            if len(done) == step:
                observation, told = {**observation, **seen}, {**told, **info}
            return observation, *rest, told

        env.unwrapped.step = spoiled

    @pytest.mark.parametrize(
        ("seen", "info", "words"),
        [
            ({"pixels": {"top": np.zeros((32, 32, 3))}}, {}, r"pixels\['top'\] became float64, not uint8"),
            ({"agent_pos": np.array([0, np.nan], np.float32)}, {}, r"agent_pos \[ 0\. nan\] is not finite"),
            ({}, {"is_success": None}, r"info\['is_success'\] is None, expected true or false"),
            (
                {},
                {"privileged": {"boxes": {"top": np.full((2, 4), 2.0)}, "visible": {"top": np.ones(2, bool)}}},
                r"boxes in 'top' must lie in \[0, 1\] of the picture",
            ),
        ],
        ids=["pixels", "agent_pos", "is_success", "boxes"],
    )
    def test_are_told_with_the_seed(
        self, env: Any, spec: TaskSpec, seen: dict[str, Any], info: dict[str, Any], words: str
    ) -> None:
        self.spoil(env, 4, seen, info)
        with pytest.raises(EpisodeError, match=f"^seed 5: {words}"):
            play(env, spec, RandomActor())

    def test_of_the_environments_code_say_where(self, env: Any, spec: TaskSpec) -> None:
        def fail(_: np.ndarray) -> Any:
            raise KeyError("gripper")

        env.unwrapped.step = fail
        with pytest.raises(EpisodeError, match=r"^seed 5: KeyError: 'gripper' \(test_rollout\.py, line \d+\)$"):
            play(env, spec, RandomActor())

    @pytest.mark.parametrize(
        "actor", [ExpertActor, lambda expert: NoisyExpert(expert, 0.0, 0.0)], ids=["clean", "noisy"]
    )
    def test_of_an_expert_are_told(self, env: Any, spec: TaskSpec, actor: Callable[..., Any]) -> None:
        with pytest.raises(EpisodeError, match=r"seed 5: the expert gave .*nan.*, expected finite numbers"):
            play(env, spec, actor(lambda env, info: np.array([np.nan, 0.0])))
        with pytest.raises(EpisodeError, match="seed 5: the expert gave"):
            play(env, spec, actor(lambda env, info: np.zeros(3)))


class TestActors:
    def test_the_expert_is_kept_within_the_tasks_bounds(self, env: Any, spec: TaskSpec) -> None:
        watcher = play(env, spec, ExpertActor(spec.make_expert()))
        actions = np.array(watcher.actions)
        assert actions.dtype == np.float32
        assert actions.max() <= 3
        assert actions.min() >= -2
        assert env.unwrapped.step_count == spec.horizon

    def test_random_actions_are_those_of_the_seed_and_span_the_bounds(self, env: Any, spec: TaskSpec) -> None:
        first, again, other = (play(env, spec, RandomActor(), seed).actions for seed in (5, 5, 6))
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)
        drawn = np.concatenate([play(env, spec, RandomActor(), seed).actions for seed in range(20)])
        assert drawn.min() < -1.8
        assert drawn.max() > 2.8
        assert drawn.mean() == pytest.approx(0.5, abs=0.2)

    def test_whoever_repeats_himself_asks_once(self, env: Any, spec: TaskSpec) -> None:
        asked: list[int] = []

        class Asked(RandomActor):
            def act(self, worlds: Sequence[World | None]) -> list[np.ndarray | None]:
                asked.append(len(worlds))
                return super().act(worlds)

        actor = RepeatingActor(Asked())
        actions = play(env, spec, actor).actions
        assert asked == [1]
        assert len(actions) == spec.horizon
        assert all(np.array_equal(action, actions[0]) for action in actions)
        assert not np.array_equal(play(env, spec, actor, seed=6).actions[0], actions[0])

    def test_a_model_of_other_peoples_acts(self, env: Any, spec: TaskSpec) -> None:
        class Model:
            def predict(self, observation: np.ndarray, *, deterministic: bool) -> tuple[list[float], None]:
                assert deterministic
                assert observation.shape == (2,)
                return [9.0, -9.0], None

        actions = play(env, spec, ModelActor(Model(), lambda world: world.observation["agent_pos"])).actions
        assert all(action.tolist() == [3, -2] for action in actions)

    def test_noise_is_in_the_policys_units_and_leaves_the_label_clean(self, env: Any, spec: TaskSpec) -> None:
        actor, clean = NoisyExpert(spec.make_expert(), noise=0.5, detours=1.0), []

        class Labels(Watcher):
            def step(self, world: World, action: np.ndarray) -> None:
                assert not actor.strays  # this expert cannot be sent to another thing
                clean.append((actor.clean, world.scale.to_unit(actor.expert(world.env, world.info))))
                super().step(world, action)

        watcher = Labels()
        run([env], [3], actor, [watcher], action_names=spec.action_names)
        for label, expected in clean:
            np.testing.assert_array_equal(label, expected)
            assert np.abs(label).max() <= 1
        done = np.array(watcher.actions)
        assert (done >= -2).all()
        assert (done <= 3).all()


def test_episodes_that_are_stepped_one_by_one_are_those_that_run_through(env: Any, spec: TaskSpec) -> None:
    whole, stepped = play(env, spec, RandomActor()), Watcher()
    episodes = Rollout([env], [5], RandomActor(), [stepped], action_names=spec.action_names)
    assert not episodes.done
    assert episodes.worlds[0].step == 0
    while not episodes.done:
        episodes.step()
    assert stepped.told == whole.told
    np.testing.assert_array_equal(stepped.actions, whole.actions)
    np.testing.assert_array_equal(stepped.pictures, whole.pictures)


def test_an_expert_goes_to_what_the_worlds_words_mean(make_env: MakeEnv) -> None:
    env, spec = make_env("track", cameras=("front",), size=16), find_task("track")
    expert = spec.make_expert()
    episodes = Rollout([env], [5], ExpertActor(expert), [watcher := Watcher()], action_names=spec.action_names)
    [world] = episodes.worlds
    world.named = 2
    meant = expert.towards(env, world.info)[2]
    episodes.step()
    np.testing.assert_array_equal(watcher.actions[0], meant)
