"""What rounds of DAgger record: the expert's labels of the states that the policy led to."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs.collect import CollectConfig
from configs.dagger import DaggerConfig
from configs.evaluation import RunnerConfig
from configs.policy import HeadConfig, PolicyConfig
from configs.run import RunConfig
from configs.seeds import collection_seed
from envs.metaworld.expert import GAIN
from envs.metaworld.instructions import texts
from envs.task import find_task, make_task, use_task_modules
from envs.workers import Pulse
from training import mixture as module
from training.collect import Demonstrator
from training.data.batches import FOLLOWED, SampleConfig, Sampler
from training.data.episodes import Dataset, Episode, open_dataset
from training.data.writer import DatasetWriter
from training.mixture import Mixture, MixtureDemonstrator, collect_mixture, mixture_config
from vla_policy.tokenizer import WordTokenizer

SaveTiny = Callable[..., Path]
Record = Callable[..., Dataset]


@pytest.fixture
def dots_policy(foreign: Path, save_tiny: SaveTiny) -> Path:
    use_task_modules([str(foreign)])
    names = {"action_names": ("right", "down"), "agent_pos_names": ("x", "y")}
    return save_tiny(("top",), tasks=("dots/plain",), control_hz=5, boxes=False, **names)


def mixed(policy: Path, share: float, **settings: Any) -> Mixture:
    config = DaggerConfig(**settings)
    return Mixture(policy=policy, runner=RunnerConfig(execute=2), share=share, config=config, number=1, seed=504)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """Records one shard in this process."""

    def make(task: str, mixture: Mixture, name: str = "round", **changes: Any) -> Dataset:
        settings = {"cameras": find_task(task).cameras[:1], "size": 32, "noise": 0.0, "detours": 0.0, **changes}
        config = CollectConfig(episodes=mixture.config.episodes, **settings)
        (tmp_path / name).mkdir(exist_ok=True)
        setup = (task, config, mixture, {"mixture": mixture.content()}, tmp_path / name)
        module._prepare(Pulse(multiprocessing), setup, ExitStack())(0)
        return open_dataset(tmp_path / name / "00000")

    return make


def test_with_a_share_of_one_it_is_what_the_expert_demonstrates(dots_policy: Path, record: Record) -> None:
    data = record("dots/plain", mixed(dots_policy, 1.0, episodes=7))
    spec, config = find_task("dots/plain"), CollectConfig(cameras=("top",), size=32, noise=0.0, detours=0.0)
    demonstrator = Demonstrator(make_task("dots/plain", cameras=("top",), size=32), spec, config)
    assert data.arrays["seeds"].tolist() == list(range(7))
    for index in (0, 6):
        first, last = data.arrays["offsets"][index : index + 2]
        episode = demonstrator.demonstrate(index)
        assert episode is not None
        for name in ("pixels", "agent_pos", "action", "executed"):
            np.testing.assert_array_equal(data.arrays[name][first:last], getattr(episode, name), err_msg=name)
        assert data.instructions[index] == list(episode.instructions)


def test_a_share_of_the_episodes_is_told_the_other_thing(save_tiny: SaveTiny, record: Record) -> None:
    spec = find_task("metaworld/drawer-open")
    names = {"action_names": spec.action_names, "agent_pos_names": spec.agent_pos_names}
    policy = save_tiny(("corner2",), tasks=(spec.name,), control_hz=spec.control_hz, boxes=False, **names)
    mixture = mixed(policy, 0.0, episodes=4, max_steps=12)
    data = record(spec.name, mixture, cameras=("corner2",), counterfactual=0.5)
    told = ["closed" if text in texts("drawer-close", "train") else "opened" for [text] in data.instructions]
    assert set(told) == {"closed", "opened"}
    for index, what in enumerate(told):
        first, last = data.arrays["offsets"][index : index + 2]
        at, ahead = data.arrays["agent_pos"][first:last, :3], data.arrays["action"][first:last, 0, 0, :3]
        # Closed it is already: the expert goes back to where the hand was. The drawer's handle is elsewhere.
        back = np.clip(GAIN * (at[0] - at), -1, 1)
        assert np.allclose(ahead, back, atol=1e-4) == (what == "closed")


def test_each_label_is_what_the_expert_does_in_the_state_that_was_reached(dots_policy: Path, record: Record) -> None:
    data = record("dots/plain", mixed(dots_policy, 0.5, episodes=3, stretch=4))
    env, expert = make_task("dots/plain", cameras=("top",), size=32), find_task("dots/plain").make_expert()
    followed = np.abs(data.arrays["executed"] - data.arrays["action"][:, 0, 0]).max(axis=1) <= FOLLOWED
    assert 0.1 < followed.mean() < 0.9
    for index in range(data.episodes):
        first, last = data.arrays["offsets"][index : index + 2]
        env.reset(seed=int(data.arrays["seeds"][index]))
        for step in range(first, last):
            np.testing.assert_allclose(env.unwrapped.hand, data.arrays["agent_pos"][step], rtol=1e-5)
            label = np.clip(expert(env, {}), -2, 3) * 0.4 - 0.2  # to [-1, 1]
            np.testing.assert_allclose(data.arrays["action"][step, 0, 0], label, atol=1e-5)
            env.step(((data.arrays["executed"][step] + 0.2) / 0.4).clip(-2, 3).astype(np.float32))


def test_chunks_of_single_labels_are_whole_only_where_the_expert_acts(dots_policy: Path, record: Record) -> None:
    data = record("dots/plain", mixed(dots_policy, 0.5, episodes=5, stretch=4))
    assert data.on_policy
    samples = SampleConfig(ages=(0,), chunk=3, cameras=("top",))
    mask = (
        Sampler([data], samples, WordTokenizer.train(data.texts, 8), ["right", "down"])
        .gather([np.arange(data.steps)])
        .action_mask
    )
    followed = np.abs(data.arrays["executed"] - data.arrays["action"][:, 0, 0]).max(axis=1) <= FOLLOWED
    for step in range(data.steps):
        left = data.arrays["offsets"][np.searchsorted(data.arrays["offsets"], step, side="right")] - step
        expected = [ahead < left and followed[step : step + ahead].all() for ahead in range(3)]
        assert mask[step].tolist() == expected
    assert mask[:, 0].all()
    assert 0 < int(mask[:, 2].sum()) < data.steps


def test_failures_are_kept_unless_told_otherwise(dots_policy: Path, record: Record, tmp_path: Path) -> None:
    kept = record("dots/plain", mixed(dots_policy, 0.3, episodes=6), "kept")
    assert kept.arrays["seeds"].tolist() == list(range(6))
    assert kept.header["failures"] == 0
    left_out = record("dots/plain", mixed(dots_policy, 0.3, episodes=6, keep_failures=False), "left_out")
    assert left_out.header["failures"] > 0
    assert left_out.episodes == 6


def test_an_expert_that_plans_labels_the_visited_states_and_episodes_can_be_cut(
    tiny_checkpoint: Path, record: Record
) -> None:
    data = record("track", mixed(tiny_checkpoint, 0.0, episodes=2, max_steps=9), plan_steps=3)
    assert np.diff(data.arrays["offsets"]).tolist() == [9, 9]
    env = make_task("track", cameras=("front",), size=32)
    expert = find_task("track").make_expert()
    for index in range(2):
        first, last = data.arrays["offsets"][index : index + 2]
        _, info = env.reset(seed=int(data.arrays["seeds"][index]))
        infos = []
        for step in range(first, last):
            infos.append(info)
            np.testing.assert_array_equal(data.arrays["action"][step, :, 0], expert.towards(env, info))
            *_, info = env.step(data.arrays["executed"][step])
        np.testing.assert_array_equal(data.arrays["action"][first:last], expert.plan(env, infos, 3))
    target = data.arrays["targets"][np.repeat([0, 1], 9)]
    assert np.abs(data.arrays["executed"] - data.arrays["action"][np.arange(18), target, 0]).max() > FOLLOWED
    # Planned chunks are whole whoever acts.
    samples = SampleConfig(ages=(0,), chunk=3, cameras=("front",))
    sampler = Sampler([data], samples, WordTokenizer.train(data.texts, 20), ["dx", "dy"])
    assert sampler.gather([np.arange(7)]).action_mask.all()
    env.close()


def test_the_same_again_is_the_same_to_the_byte(dots_policy: Path, record: Record, tmp_path: Path) -> None:
    one = record("dots/plain", mixed(dots_policy, 0.5, episodes=3), "one")
    two = record("dots/plain", mixed(dots_policy, 0.5, episodes=3), "two")
    assert one.header == two.header
    assert one.header["collection"]["mixture"]["share"] == 0.5
    other = record("dots/plain", mixed(dots_policy, 0.2, episodes=3), "other")
    assert other.header["files"] != one.header["files"]


def test_an_interrupted_shard_goes_on_in_the_rows_it_would_have_had(
    dots_policy: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    mixture, made = mixed(dots_policy, 0.5, episodes=7), MixtureDemonstrator.demonstrate
    rows: list[tuple[int, list[int]]] = []
    added = DatasetWriter.add

    def noted(self: MixtureDemonstrator, seeds: Sequence[int], pulse: Pulse | None = None, row: int = 0) -> Any:
        rows.append((row, list(seeds)))
        return made(self, seeds, pulse, row)

    monkeypatch.setattr(MixtureDemonstrator, "demonstrate", noted)
    whole = record("dots/plain", mixture, "whole")
    assert rows == [(0, [0, 1, 2, 3, 4]), (0, [5, 6])]

    def killed(writer: DatasetWriter, episode: Episode) -> None:
        if len(writer.seeds) == 3:
            raise KeyboardInterrupt
        added(writer, episode)

    with monkeypatch.context() as patch:
        patch.setattr(DatasetWriter, "add", killed)
        with pytest.raises(KeyboardInterrupt):
            record("dots/plain", mixture, "parts")
    rows.clear()
    parts = record("dots/plain", mixture, "parts")
    assert rows == [(3, [3, 4]), (0, [5, 6])]
    assert parts.header == whole.header


def test_a_round_fits_the_demonstrations_and_has_scenes_of_its_own(
    dots_policy: Path, write_small: Callable[..., Dataset]
) -> None:
    base = write_small("base", cameras=("top", "side"))
    usual = RunConfig(
        collect=CollectConfig(seed=3, episodes=1000), policy=PolicyConfig(cameras=("side",), head=HeadConfig(chunk=12))
    )
    config = mixture_config(usual, base, mixed(dots_policy, 0.5, episodes=20))
    assert (config.cameras, config.size, config.plan_steps) == (("side",), 32, 12)
    assert (config.episodes, config.noise, config.detours, config.split) == (20, 0, 0, "train")
    starts = [collection_seed("train", seed, 0) for seed in (3, config.seed, config.seed + 1)]
    assert config.seed == 504
    assert min(abs(a - b) for i, a in enumerate(starts) for b in starts[:i]) > 100_000


def test_where_the_simulation_can_be_put_back_labels_are_whole_chunks(save_tiny: SaveTiny, record: Record) -> None:
    """From every state that was visited, whoever acts: the expert's own next actions, were it left alone."""
    task, cameras = "metaworld/drawer-close", ("corner2_middle",)
    spec = find_task(task)
    names = {"action_names": spec.action_names, "agent_pos_names": spec.agent_pos_names}
    policy = save_tiny(cameras, tasks=(task,), control_hz=spec.control_hz, **names)
    mixture = mixed(policy, 0.5, episodes=1, max_steps=12, stretch=4)
    data = record(task, mixture, cameras=cameras, plan_steps=5)
    assert data.arrays["action"].shape == (12, 1, 5, 4)
    assert data.goals
    env, expert = make_task(task, cameras=(), size=32), spec.make_expert()
    try:
        for step in (0, 5, 11):
            _, info = env.reset(seed=int(data.arrays["seeds"][0]))
            for done in range(step):
                *_, info = env.step(data.arrays["executed"][done])
            for ahead in range(5):
                action = expert(env, info)
                np.testing.assert_allclose(data.arrays["action"][step, 0, ahead], action, atol=1e-6)
                *_, info = env.step(action)
    finally:
        env.close()


def test_a_policy_of_another_robot_is_refused(
    tiny_checkpoint: Path, dots_policy: Path, record: Record, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="task 'dots/plain' needs action 'right', the policy gives dx, dy"):
        record("dots/plain", mixed(tiny_checkpoint, 0.5, episodes=2))
    with pytest.raises(ValueError, match="has no expert"):
        collect_mixture({"dots/alone": CollectConfig()}, mixed(dots_policy, 0.5), {"dots/alone": tmp_path / "data"})


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"rounds": 0}, "dagger.rounds 0 must be at least 1"),
        ({"beta": 1.5}, r"dagger.beta 1.5 must lie in \[0, 1\]"),
        ({"beta_least": -0.1}, r"dagger.beta_least -0.1 must lie in \[0, 1\]"),
        ({"learning_rate": 0.0}, "dagger.learning_rate 0.0 must be above 0"),
        ({"stretch": -1}, "dagger.stretch -1 must be at least 0"),
        ({"steps": 1.5}, "dagger.steps is 1.5, expected a whole number"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DaggerConfig(**wrong)


def test_the_experts_share_falls_to_its_least() -> None:
    config = DaggerConfig(beta=0.5, beta_least=0.2)
    assert [config.share(number) for number in (1, 2, 3, 9)] == [0.5, 0.25, 0.2, 0.2]
    assert DaggerConfig(beta=1.0).share(4) == 1.0
