"""Holds an environment against what its task's description says, and against the contract in `envs.task`."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from envs.task import ActionScale, Env, TaskSpec, instruction_of, offers

PLANNING = ("present", "target", "events")  # of `info["privileged"]`, what experts that plan for all things need


def check_contract(env: Env, spec: TaskSpec, cameras: Sequence[str], size: int) -> None:
    """Reset an environment, take one step, and look at all that is promised.

    Args:
        cameras, size: that it was made with.

    Raises:
        ValueError: something is missing, differs or fails; the message says what was got and what is expected.
    """
    where = f"task {spec.name!r}"
    scale = ActionScale(env.action_space)
    if len(scale.low) != len(spec.action_names):
        raise ValueError(f"{where}: {len(scale.low)} actions, the task's description names {len(spec.action_names)}")
    with _in_one_line(f"{where}: reset(seed=0)"):
        observation, info = env.reset(seed=0)
    _check_observation(observation, spec, cameras, size)
    with _in_one_line(f"{where}: its instruction"):
        instruction_of(env, observation)
    shapes = _check_info(info, spec, cameras, offers(env, "instructions"))
    rate = env.metadata.get("render_fps")
    if rate != spec.control_hz:
        expected = f"the task's description says control_hz {spec.control_hz:g}"
        raise ValueError(f"{where}: metadata['render_fps'] is {rate}, {expected}")
    limit = env.spec.max_episode_steps if env.spec else None
    if limit != spec.horizon:
        expected = f"the task's description says horizon {spec.horizon}"
        raise ValueError(f"{where}: registered with max_episode_steps {limit}, {expected}")
    with _in_one_line(f"{where}: step()"):
        observation, _, _, _, info = env.step(scale.to_task(np.zeros(len(scale.low), np.float32)))
    _check_observation(observation, spec, cameras, size)
    later = _check_info(info, spec, cameras, offers(env, "instructions"))
    if later != shapes:
        raise ValueError(f"{where}: shapes in info['privileged'] changed from {shapes} to {later} in one step")


def _check_observation(observation: Any, spec: TaskSpec, cameras: Sequence[str], size: int) -> None:
    where = f"task {spec.name!r}"
    if not isinstance(observation, Mapping) or not {"pixels", "agent_pos"} <= set(observation):
        raise ValueError(f"{where}: an observation must be a dict with 'pixels' and 'agent_pos'")
    if not isinstance(observation["pixels"], Mapping):
        raise ValueError(f"{where}: pixels must be a dict from camera to picture")
    for camera in cameras:
        picture = observation["pixels"].get(camera)
        if not isinstance(picture, np.ndarray) or picture.shape != (size, size, 3) or picture.dtype != np.uint8:
            raise ValueError(f"{where}: pixels[{camera!r}] is {_kind(picture)}, expected ({size}, {size}, 3) uint8")
    agent_pos, expected = observation["agent_pos"], (len(spec.agent_pos_names),)
    if getattr(agent_pos, "shape", None) != expected or agent_pos.dtype != np.float32:
        raise ValueError(f"{where}: agent_pos is {_kind(agent_pos)}, expected {expected} float32")
    if not np.isfinite(agent_pos).all():
        raise ValueError(f"{where}: agent_pos {agent_pos} must be finite")


def _check_info(
    info: Mapping[str, Any], spec: TaskSpec, cameras: Sequence[str], instructions: Any
) -> dict[str, tuple[int, ...]]:
    """Shapes of the labels, which must stay as they are."""
    where = f"task {spec.name!r}"
    if not isinstance(info.get("is_success"), bool | np.bool_ | int):
        got = repr(info["is_success"]) if "is_success" in info else "nothing"
        raise ValueError(f"{where}: info['is_success'] is {got}, expected whether the episode so far is a success")
    known = info.get("privileged", {})
    if spec.expert and hasattr(spec.make_expert(), "plan"):
        missing = [name for name in PLANNING if name not in known] + ([] if instructions else ["instructions(rng)"])
        if missing:
            raise ValueError(f"{where}: its expert plans for every thing, which needs {missing[0]}; see envs/task.py")
    if "boxes" not in known:
        return {}
    shapes = {}
    for camera in cameras:
        for name, axes in (("boxes", 2), ("visible", 1)):
            value = known.get(name, {}).get(camera)
            if getattr(value, "ndim", None) != axes or (name == "boxes" and value.shape[1] != 4):
                expected = "(O, 4)" if name == "boxes" else "(O,)"
                raise ValueError(f"{where}: privileged[{name!r}][{camera!r}] is {_kind(value)}, expected {expected}")
            shapes[f"{name} of {camera}"] = tuple(value.shape)
    things = {shape[0] for shape in shapes.values()}
    if len(things) > 1:
        raise ValueError(f"{where}: info['privileged'] labels different numbers of things: {shapes}")
    target = known.get("target")
    if not isinstance(target, int | np.integer) or not 0 <= target < max(things):
        raise ValueError(f"{where}: privileged['target'] is {target!r}, expected one of its {max(things)} things")
    return shapes


def _kind(value: Any) -> str:
    if not isinstance(value, np.ndarray):
        return f"a {type(value).__name__}"
    return f"{value.shape} {value.dtype}"


@contextmanager
def _in_one_line(what: str) -> Iterator[None]:
    """Whatever somebody's code raises, as one line that says where."""
    try:
        yield
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        said = " ".join(str(error).split())
        where = f"{Path(place.filename).name}, line {place.lineno}"
        raise ValueError(f"{what} failed: {type(error).__name__}: {said} ({where})") from error
