"""Labels for all words of a scene whose things the hand moves: those of one other thing a step, and all boxes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from configs.collect import CollectConfig
from envs.task import find_task, make_task
from training.collect import Demonstrator
from training.data.batches import SampleConfig, Sampler
from training.data.episodes import Dataset, DatasetError, Episode, open_dataset
from training.data.writer import DatasetWriter
from vla_policy.tokenizer import WordTokenizer

STEPS = 4


@pytest.fixture(scope="module")
def config() -> CollectConfig:
    return CollectConfig(cameras=("left",), size=32, noise=0.2, detours=1.0, plan_steps=STEPS)


@pytest.fixture(scope="module")
def episode(config: CollectConfig) -> Episode:
    env = make_task("place", cameras=config.cameras, size=config.size)
    made = Demonstrator(env, find_task("place"), config).demonstrate(0)
    env.close()
    assert made is not None
    return made


@pytest.fixture
def data(episode: Episode, tmp_path: Any) -> Dataset:
    spec = find_task("place")
    header = {
        "task": "place",
        "cameras": ["left"],
        "action_names": list(spec.action_names),
        "agent_pos_names": list(spec.agent_pos_names),
        "control_hz": spec.control_hz,
    }
    with DatasetWriter(tmp_path / "data", header) as writer:
        writer.add(episode)
        writer.finish()
    return open_dataset(tmp_path / "data")


def test_two_things_a_step_are_labelled(episode: Episode) -> None:
    known = episode.planned
    assert known is not None
    named = np.array([text is not None for text in episode.instructions])
    assert named.sum() > 2
    assert not known[:, ~named].any()
    others = np.delete(known, episode.target, axis=1)
    assert ((others == STEPS).sum(axis=1) == 1).all()
    assert (others.any(axis=0) == np.delete(named, episode.target)).all()
    left = np.minimum(len(episode) - np.arange(len(episode)), STEPS)
    assert ((known[:, episode.target] == left) | (known[:, episode.target] == STEPS)).all()


def test_each_is_what_the_expert_would_do(episode: Episode) -> None:
    env, expert = make_task("place", cameras=(), size=32), find_task("place").make_expert()
    try:
        for step in (0, 3, len(episode) // 2, len(episode) - 1):
            for thing in np.flatnonzero(episode.planned[step] == STEPS) if episode.planned is not None else ():
                _, info = env.reset(seed=episode.seed)
                for done in range(step):
                    *_, info = env.step(episode.executed[done])
                if thing == episode.target and step > 38:
                    continue  # put together from labels of later steps, which saw noise
                for ahead in range(STEPS):
                    info["privileged"]["target"] = int(thing)
                    action = expert(env, info)
                    np.testing.assert_allclose(episode.action[step, thing, ahead], action, atol=1e-6)
                    *_, terminated, truncated, info = env.step(action)
                    if terminated or truncated:
                        break
    finally:
        env.close()


def test_boxes_are_those_of_what_the_words_mean(episode: Episode) -> None:
    env = make_task("place", cameras=("left",), size=32)
    _, info = env.reset(seed=episode.seed)
    known = info["privileged"]
    boxes = known["boxes"]["left"]
    assert episode.boxes is not None
    assert episode.goal_boxes is not None
    for thing, (body, goal) in enumerate(known["aims"]):
        if body >= 0:
            np.testing.assert_array_equal(episode.boxes[0, 0, thing], boxes[body])
            np.testing.assert_array_equal(episode.goal_boxes[0, 0, thing], boxes[goal])
        else:
            assert not episode.boxes[:, :, thing].any()
            assert not episode.goal_boxes[:, :, thing].any()
    env.close()


def test_what_has_no_label_is_not_learned(data: Dataset) -> None:
    samples = SampleConfig(ages=(0,), chunk=3, cameras=("left",))
    names = list(data.interface.action_names)
    sampler = Sampler([data], samples, WordTokenizer.train(data.texts, 64), names)
    known = data.arrays["planned"]
    for thing in range(known.shape[1]):
        steps = np.arange(data.steps)
        mask = sampler.gather([steps], [np.full(data.steps, thing)]).action_mask.numpy()
        assert (mask == (np.arange(3) < known[:, thing, None])).all()


def test_words_are_drawn_among_those_with_a_label(data: Dataset) -> None:
    samples = SampleConfig(ages=(0,), chunk=3, cameras=("left",))
    names = list(data.interface.action_names)
    sampler = Sampler([data], samples, WordTokenizer.train(data.texts, 64), names, relabel=1.0)
    batch = sampler.batch(np.random.default_rng(0), 200)
    assert batch.action_mask[:, 0].all()
    assert len(np.unique(batch.observation.tokens.numpy(), axis=0)) > 2


def test_more_labels_than_a_plan_has_are_refused(episode: Episode, tmp_path: Any) -> None:
    wrong = replace(episode, planned=np.full(episode.action.shape[:2], STEPS + 1))
    with (
        DatasetWriter(tmp_path / "wrong") as writer,
        pytest.raises(DatasetError, match=f"planned must lie between 0 and the {STEPS} actions"),
    ):
        writer.add(wrong)
