"""Other people's environments as tasks: the worked example of the documentation, and Gymnasium's own."""

from __future__ import annotations

import dataclasses
import gc
import importlib.util
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from stable_baselines3.common.env_checker import check_env as check_env_for_stable_baselines

from envs import task as registry
from envs.contract import check_contract
from envs.mujoco_task import MujocoTask, control_hz
from envs.segments import Thing
from envs.task import find_task
from envs.wrappers import FlatObservation

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
NAME = "colour_reacher"
EPISODES = 200

Differences = Callable[[Any, Any], list[str]]
Make = Callable[..., Any]


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    """The example's module, as `--task-module` imports it; forgotten after these tests."""
    spec = importlib.util.spec_from_file_location(NAME, EXAMPLES / f"{NAME}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[NAME] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules[NAME], registry._REGISTRY[NAME], gymnasium.registry["ColourReacher-v0"]


@pytest.fixture
def make(example: ModuleType) -> Iterator[Make]:
    made: list[Any] = []

    def reacher(**settings: Any) -> Any:
        made.append(gymnasium.make("ColourReacher-v0", disable_env_checker=True, **settings).env.env)
        assert isinstance(made[-1], example.ColourReacher)
        return made[-1]

    yield reacher
    for env in made:
        env.close()


def actions(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 2)).astype(np.float32)


def run(env: Any, seed: int, act: Callable[[dict[str, Any]], np.ndarray], **options: Any) -> dict[str, Any]:
    """The last info of an episode."""
    _, info = env.reset(seed=seed, options=options)
    over = False
    while not over:
        *_, terminated, truncated, info = env.step(act(info))
        over = terminated or truncated
    return dict(info)


# The contract.


@pytest.mark.usefixtures("example")
def test_it_is_what_its_description_says() -> None:
    spec = find_task(NAME)
    env = gymnasium.make(spec.env_id, cameras=spec.cameras, size=48)
    check_contract(env, spec, spec.cameras, 48)
    assert spec.read("go to the BLUE one") == {"colour": "blue"}
    for text in ("go to the pink one", "the red or the blue one", "do not touch the red one"):
        with pytest.raises(ValueError, match=r"must name one of red, green, blue|says what not to do"):
            spec.read(text)
    env.close()


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")  # a task is a wrapper
@pytest.mark.usefixtures("example")
def test_checkers_find_nothing_to_say() -> None:
    check_env(gymnasium.make("ColourReacher-v0", render_mode="rgb_array").env.env, skip_render_check=True)
    check_env_for_stable_baselines(FlatObservation(gymnasium.make("ColourReacher-v0")), warn=True)
    env = gymnasium.make("ColourReacher-v0")
    again = gymnasium.make(env.spec)
    assert again.observation_space == env.observation_space
    assert again.spec == env.spec


def test_shapes_never_change(make: Make) -> None:
    env = make(size=32)
    observation, info = env.reset(seed=0)
    for action in actions(12):
        assert observation in env.observation_space
        assert type(info["is_success"]) is type(info["stable"]) is bool
        known = info["privileged"]
        shapes = {name: (known[name].shape, known[name].dtype) for name in ("present", "events")}
        assert shapes == {"present": ((3,), np.bool_), "events": ((3, 2), np.int64)}
        assert known["boxes"]["top"].shape == (3, 4)
        assert known["boxes"]["top"].dtype == np.float32
        assert known["visible"]["top"].shape == (3,)
        assert known["visible"]["top"].dtype == np.bool_
        assert 0 <= known["target"] < 3
        assert (known["events"] == (0, env.horizon)).all()
        observation, *_, info = env.step(action)
    assert make(labels="none").reset(seed=0)[1]["privileged"]["boxes"] == {}
    assert env.metadata["render_fps"] == 50


def test_same_seed_same_bytes_whatever_came_before(make: Make, differences: Differences) -> None:
    fresh, used = make(), make()
    used.reset(seed=1)
    for action in actions(20, seed=1):
        used.step(action)
    assert differences(fresh.reset(seed=5), used.reset(seed=5)) == []
    for action in actions(20):
        assert differences(fresh.step(action), used.step(action)) == []
    assert differences(fresh.reset(), used.reset()) == []
    starts = [fresh.reset(seed=seed)[0] for seed in range(8)]
    assert len({seen["pixels"]["top"].tobytes() for seen in starts}) == 8
    assert len({seen["instruction"] for seen in starts}) > 4


def test_pictures_show_the_moment_they_are_taken_in(make: Make) -> None:
    env = make()
    env.reset(seed=0)
    for action in actions(3):
        seen, *_ = env.step(action)
    mujoco.mj_forward(env.model, env.data)
    np.testing.assert_array_equal(env.picture("top", 64), seen["pixels"]["top"])
    np.testing.assert_allclose(seen["agent_pos"][-2:], env.data.body("fingertip").xpos[:2], atol=1e-6)


def test_boxes_are_around_the_targets(make: Make) -> None:
    env = make(size=128)
    for seed in range(10):
        _, info = env.reset(seed=seed)
        for index, place in enumerate(env.places):
            if info["privileged"]["visible"]["top"][index]:
                box = info["privileged"]["boxes"]["top"][index]
                middle = env.in_picture("top", np.array([*place, 0.0]))
                assert np.abs(box[:2] - middle).max() < 0.02
                np.testing.assert_allclose(box[2:], 2 * 0.02 / (2 * np.tan(np.deg2rad(13))), atol=0.02)
    assert env.in_picture("top", np.array([0.0, 0.0, 2.0])) is None


@pytest.mark.parametrize(("mode", "settings"), [("sync", {}), ("async", {"context": "spawn"})])
def test_vector_environments_give_what_single_ones_give(
    mode: str, settings: dict[str, Any], make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))  # workers start with the path of their parent
    together = gymnasium.make_vec("colour_reacher:ColourReacher-v0", 2, vectorization_mode=mode, vector_kwargs=settings)
    chosen = np.stack([actions(3, seed) for seed in (0, 1)], axis=1)
    observed = [together.reset(seed=[5, 6])[0]] + [together.step(both)[0] for both in chosen]
    described = together.call("task_description")
    together.close()
    for index, seed in enumerate((5, 6)):
        env = make()
        alone = [env.reset(seed=seed)[0]] + [env.step(both[index])[0] for both in chosen]
        assert described[index] == env.instruction
        for joint, single in zip(observed, alone, strict=True):
            assert joint["instruction"][index] == single["instruction"]
            np.testing.assert_array_equal(joint["pixels"]["top"][index], single["pixels"]["top"])
            np.testing.assert_array_equal(joint["agent_pos"][index], single["agent_pos"])


# The example: what it asks for, and what it gives away.


@pytest.mark.parametrize(("noise", "least"), [(0.0, 0.97), (0.2, 0.9)])
def test_the_expert_succeeds(noise: float, least: float, make: Make, example: ModuleType) -> None:
    env, succeeded = make(labels="none", size=16), 0
    for seed in range(EPISODES):
        rng = np.random.default_rng(seed)
        info = run(env, seed, lambda info, rng=rng: example.expert(env, info) + noise * rng.standard_normal(2))
        succeeded += info["is_success"]
    assert succeeded >= least * EPISODES


def test_doing_nothing_or_as_one_likes_fails(make: Make) -> None:
    env, rng = make(labels="none", size=16), np.random.default_rng(0)
    for act in (lambda _: np.zeros(2), lambda _: rng.uniform(-1, 1, 2)):
        assert sum(run(env, seed, act)["is_success"] for seed in range(20)) <= 3


def test_who_follows_other_words_is_judged_to_have_done_so(make: Make, example: ModuleType) -> None:
    env = make(labels="none", size=16)
    for seed in range(10):
        env.reset(seed=seed)
        text, index = env.counterfactual("held_out", np.random.default_rng(seed))
        assert find_task(NAME).read(text) == {"colour": list(example.COLOURS)[index]}
        assert index != env.target
        assert text.replace(list(example.COLOURS)[index], "{it}") in example.PHRASINGS["held_out"]

        def follow(info: dict[str, Any], index: int = index) -> np.ndarray:
            action: np.ndarray = example.expert(env, {"privileged": {"target": index}})
            return action

        assert not run(env, seed, follow)["is_success"]
        assert env.judge(index)
        assert len(env.tracking_errors()) == env.step_count < env.horizon
        assert min(env.judged_errors()) > 0.05


def test_options_say_how_and_what(make: Make, example: ModuleType) -> None:
    env = make(labels="none", size=16)
    assert not set(example.PHRASINGS["train"]) & set(example.PHRASINGS["held_out"])
    for colour in example.COLOURS:
        seen, _ = env.reset(seed=0, options={"phrasing": "held_out", "colour": colour})
        assert seen["instruction"].replace(colour, "{it}") in example.PHRASINGS["held_out"]
        assert env.target_name == f"{colour} target"
        assert env.task_description == seen["instruction"]
    assert env.reset_options == {"phrasing": ("train", "held_out")}


def test_only_the_words_tell_which_is_meant(make: Make, differences: Differences) -> None:
    one, other = make(), make()
    seen, seen_other = (
        env.reset(seed=2, options={"colour": colour})[0] for env, colour in ((one, "red"), (other, "blue"))
    )
    assert differences(seen, seen_other) == [".instruction"]
    for action in actions(20):
        assert differences(one.step(action)[0], other.step(action)[0]) == [".instruction"]


def test_proprioception_says_nothing_about_targets(make: Make) -> None:
    one, other = make(), make()
    one.reset(seed=2), other.reset(seed=2)
    other.data.mocap_pos[:, :2] *= 0.5
    other.data.qpos[2:] += 0.05
    for action in actions(10):
        seen, seen_other = one.step(action)[0], other.step(action)[0]
        np.testing.assert_array_equal(seen["agent_pos"], seen_other["agent_pos"])
        assert not np.array_equal(seen["pixels"]["top"], seen_other["pixels"]["top"])


# What cannot be.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cameras": ("tip",)}, r"camera 'tip' is unknown \(did you mean top\?\)"),
        ({"cameras": ("top", "top")}, "each once"),
        ({"cameras": (), "render_mode": "rgb_array"}, "needs a camera; name one of top"),
        ({"size": 8}, "between 16 and 512"),
        ({"labels": "masks"}, "'boxes' or 'none'"),
        ({"render_mode": "human"}, "rgb_array"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str, example: ModuleType) -> None:
    with pytest.raises(ValueError, match=message):
        example.ColourReacher(**settings)


def test_options_and_actions_that_mean_nothing_are_refused(make: Make) -> None:
    env = make(labels="none", size=16)
    with pytest.raises(ValueError, match="phrasing 'odd' must be one of train, held_out"):
        env.reset(options={"phrasing": "odd"})
    with pytest.raises(ValueError, match=r"reset option 'color' is unknown \(did you mean colour\?\)"):
        env.reset(options={"color": "red"})
    env.reset(seed=0)
    for bad in (np.zeros(3), np.full(2, np.nan), 1.0):
        with pytest.raises(ValueError, match=r"must be \(2,\) finite numbers"):
            env.step(bad)
    left, _ = env.step(np.array([9.0, -9.0]))[:2]
    env.reset(seed=0)
    np.testing.assert_array_equal(env.step(np.array([1.0, -1.0]))[0]["agent_pos"], left["agent_pos"])


def test_before_the_start_and_after_the_end(make: Make, example: ModuleType) -> None:
    env = make(labels="none", size=16, render_mode="rgb_array")
    for call in (env.render, lambda: env.step(np.zeros(2))):
        with pytest.raises(ValueError, match="call reset"):
            call()
    run(env, 0, lambda info: example.expert(env, info))
    assert env.render().shape == (256, 256, 3)
    with pytest.raises(ValueError, match="after the episode's end"):
        env.step(np.zeros(2))
    env.close()
    env.close()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="rgb_array"):
        make().render()


def test_a_simulation_that_breaks_down_ends_its_episode_as_failed(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo leaves a log file where it is
    env = make()
    env.reset(seed=0)
    env.data.qvel[0] = 1e12
    *_, terminated, _, info = env.step(np.zeros(2))
    assert terminated
    assert not info["stable"]
    assert not info["is_success"]
    assert env.reset(seed=0)[1]["stable"]


# Gymnasium's own environments.


class Hop(MujocoTask):
    views: ClassVar[Mapping[str, Any]] = {
        "side": {"trackbodyid": 1, "distance": 3.0, "elevation": -10.0},
        "own": "track",
    }
    agent_pos_names: ClassVar[tuple[str, ...]] = ("height", "pitch")
    horizon: int = 6
    text = "hop forward"

    def begin(self, phrasing: str, options: Mapping[str, Any]) -> tuple[str, int]:
        return self.text, 0

    def agent_pos(self) -> np.ndarray:
        return self.data.qpos[1:3]

    def success(self) -> bool:
        return bool(self.step_count >= 4)

    def is_over(self) -> bool:
        return False


def test_a_task_without_things_or_held_out_words() -> None:
    env = Hop(gymnasium.make("Hopper-v5").unwrapped, size=32)
    seen, info = env.reset(seed=0)
    assert set(seen["pixels"]) == {"side", "own"}
    assert info["privileged"]["boxes"]["side"].shape == (0, 4)
    assert env.metadata["render_fps"] == control_hz(env.env) == 125
    rewards = []
    while True:
        seen, reward, _, truncated, info = env.step(np.zeros(3))
        rewards.append(reward)
        assert info["x_position"] == pytest.approx(env.data.qpos[0])  # what the environment says stays
        if truncated:
            break
    assert rewards == [0, 0, 0, 1, 1, 1]
    with pytest.raises(ValueError, match="must be one of train"):
        env.reset(options={"phrasing": "held_out"})
    env.close()


def test_things_and_words_of_a_task_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    env = Hop(gymnasium.make("Hopper-v5").unwrapped, size=32)
    monkeypatch.setattr(Hop, "text", "hüpf")
    with pytest.raises(ValueError, match="instruction 'hüpf' must be 1 to 120 of the characters"):
        env.reset(seed=0)
    monkeypatch.setattr(Hop, "text", "hop")
    monkeypatch.setattr(Hop, "things", (Thing(bodies=("foots",)),))
    with pytest.raises(ValueError, match=r"body 'foots' is unknown \(did you mean foot\?\)"):
        env.reset(seed=0)
    monkeypatch.setattr(Hop, "things", (Thing(bodies=("foot",)),))
    assert env.reset(seed=0)[1]["privileged"]["visible"]["side"][0]
    env.close()


@pytest.mark.parametrize("name", ["CartPole-v1", "Blackjack-v1"])
def test_environments_without_a_model_are_refused(name: str) -> None:
    env = gymnasium.make(name)
    with pytest.raises(ValueError, match="has no MuJoCo model and data"):
        Hop(env)
    env.close()


def test_the_description_is_complete(example: ModuleType) -> None:
    spec = find_task(NAME)
    assert spec.agent_pos_names == example.ColourReacher.agent_pos_names
    assert spec.make_expert() is example.expert
    assert dataclasses.replace(spec, name="other").interface == spec.interface


def test_closed_environment_is_freed_at_once(example: ModuleType) -> None:
    env: Any = gymnasium.make("ColourReacher-v0", disable_env_checker=True, on_demand=True)
    assert all(picture.any() for picture in env.reset(seed=0)[0]["pixels"].values())
    env.step(env.action_space.sample())
    task = weakref.ref(env.unwrapped)
    gc.disable()  # which would find it, sooner or later
    try:
        env.close()
        del env
        assert task() is None
    finally:
        gc.enable()
