"""How much of the simulator's own speed the collection of demonstrations keeps, and how often the experts succeed.

The yardstick is what one control step of a labelled episode costs MuJoCo alone: physics, scene update, a colour and a
segmentation picture of every camera, and reading both back, in a bare loop. The other side is all that a worker does:
reset, expert, noise, arm control, observation, boxes, and writing the successful episodes to disk. The two take turns,
so that a machine that changes its speed changes it for both.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from configs.collect import CollectConfig
from configs.seeds import split_seed
from envs.actors import ExpertActor
from envs.rollout import run
from envs.task import all_tasks, find_task, make_task
from training.collect import Demonstrator
from training.data.episodes import Episode
from training.data.writer import write_dataset
from training.reinforcement.expert import load_expert

if TYPE_CHECKING:
    from envs.tabletop.env import TabletopEnv

WRITE_EVERY = 5  # episodes
SMALL_PICTURE = 16  # pixels a side, where nobody looks at the pictures


def collection_ratio(seconds: float, task: str = "track", config: CollectConfig | None = None) -> dict[str, Any]:
    """Measure one worker's collection against the bare simulator, in simulated control steps per second.

    Failed episodes count as simulated: how many there are is the noise's doing, and `kept_share` tells it.

    Args:
        seconds: how long to measure, both sides together; a few episodes are measured in any case.
        task: one of our table-top tasks.
        config: how to collect; its `episodes` and `workers` do not matter here.
    """
    config, spec = config or CollectConfig(), find_task(task)
    env = make_task(task, cameras=config.cameras, size=config.size, randomise=config.randomise)
    world: TabletopEnv = env.unwrapped  # type: ignore[assignment]
    env.reset(seed=split_seed(config.split, config.seed))
    bare_step, free = _bare_step(world)
    demonstrator = Demonstrator(env, spec, config)
    header = {
        "task": task,
        "cameras": list(config.cameras),
        "action_names": list(spec.action_names),
        "agent_pos_names": list(spec.agent_pos_names),
        "control_hz": spec.control_hz,
    }
    kept: list[Episode] = []
    steps, kept_steps, raw_seconds, collection_seconds, index = 0, 0, 0.0, 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        while index % WRITE_EVERY or index == 0 or raw_seconds + collection_seconds < seconds:
            started = time.perf_counter()
            episode = demonstrator.demonstrate(split_seed(config.split, config.seed + index))
            index += 1
            if episode is not None and episode.success:
                kept.append(episode)
                kept_steps += len(episode)
            if index % WRITE_EVERY == 0 and kept:
                write_dataset(Path(folder) / str(index), kept, header)
                kept.clear()
            collected = time.perf_counter()
            for _ in range(world.step_count):
                bare_step()
            collection_seconds += collected - started
            raw_seconds += time.perf_counter() - collected
            steps += world.step_count
    gl_renderer = world.gl_renderer
    free()
    env.close()
    return {
        "task": task,
        "cameras": list(config.cameras),
        "size": config.size,
        "steps": steps,
        "kept_share": kept_steps / steps,
        "raw_steps_per_second": steps / raw_seconds,
        "collection_steps_per_second": steps / collection_seconds,
        "ratio": raw_seconds / collection_seconds,
        "gl_renderer": gl_renderer,
    }


def expert_success(
    episodes: int = 200, tasks: tuple[str, ...] | None = None, learned: str = ""
) -> dict[str, dict[str, Any]]:
    """How often each task's expert succeeds without noise on the first test seeds, and on which it does not.

    Args:
        tasks: by name; None takes all that have an expert and belong to no suite.
        learned: folder of an expert of `vla rl` that is measured in place of the task's own.

    Returns, by task: `episodes`, `successes`, and `failed_seeds` as one gives them to `--seed`.
    """
    if episodes < 1:
        raise ValueError(f"episodes {episodes} must be at least 1")
    found = {}
    for name in tasks if tasks is not None else _own_demonstrated():
        spec = find_task(name)
        cameras = () if "no_cameras" in spec.takes else spec.cameras[:1]
        env = make_task(name, cameras=cameras, size=SMALL_PICTURE, labels=False)
        actor, failed = ExpertActor(load_expert(learned, spec) if learned else spec.make_expert()), []
        try:
            for index in range(episodes):
                [world] = run([env], [split_seed("test", index)], actor, action_names=spec.action_names)
                if not world.info["is_success"]:
                    failed.append(index)
        finally:
            env.close()
        found[name] = {"episodes": episodes, "successes": episodes - len(failed), "failed_seeds": failed}
    return found


def _own_demonstrated() -> list[str]:
    return [name for name, spec in all_tasks().items() if spec.expert and not spec.suites]


def raw_frames_per_second(env: TabletopEnv, seconds: float) -> float:
    """Pictures of the first camera drawn one after another, with nothing in between: no physics, no labels.

    The environment must have an episode. At least one picture is drawn, after one that does not count.
    """
    from envs.rendering import Renderer

    renderer = Renderer(env.model, env.size)
    try:
        renderer.draw(env.data, env.cameras[0])
        frames, started = 0, time.perf_counter()
        while frames == 0 or time.perf_counter() - started < seconds:
            renderer.draw(env.data, env.cameras[0])
            frames += 1
        return frames / (time.perf_counter() - started)
    finally:
        renderer.close()


def _bare_step(env: TabletopEnv) -> tuple[Callable[[], None], Callable[[], None]]:
    """Functions that run one control step of the environment's scene by MuJoCo's calls alone, and free what that took.

    It goes on from the state in which the last episode ended, so that both sides simulate and draw the same things.
    """
    import mujoco
    import numpy as np

    from envs.tabletop.scene import HIDDEN_GROUP, SUBSTEPS

    model, data = env.model, env.data
    cameras = []
    for name in env.cameras:
        cameras.append(mujoco.MjvCamera())
        cameras[-1].type, cameras[-1].fixedcamid = int(mujoco.mjtCamera.mjCAMERA_FIXED), model.camera(name).id
    context = mujoco.GLContext(env.size, env.size)
    context.make_current()
    mjr = mujoco.MjrContext(model, int(mujoco.mjtFontScale.mjFONTSCALE_50))
    mujoco.mjr_setBuffer(int(mujoco.mjtFramebuffer.mjFB_OFFSCREEN), mjr)
    scene, option, perturb = mujoco.MjvScene(model, maxgeom=200), mujoco.MjvOption(), mujoco.MjvPerturb()
    option.geomgroup[HIDDEN_GROUP] = 0
    option.sitegroup[:] = 0
    rectangle, pixels = mujoco.MjrRect(0, 0, env.size, env.size), np.zeros((env.size, env.size, 3), np.uint8)
    everything = int(mujoco.mjtCatBit.mjCAT_ALL)
    shadow, reflection = int(mujoco.mjtRndFlag.mjRND_SHADOW), int(mujoco.mjtRndFlag.mjRND_REFLECTION)
    segment, number = int(mujoco.mjtRndFlag.mjRND_SEGMENT), int(mujoco.mjtRndFlag.mjRND_IDCOLOR)
    scene.flags[shadow] = scene.flags[reflection] = 0

    def step() -> None:
        context.make_current()
        mujoco.mj_step(model, data, nstep=SUBSTEPS)
        for camera in cameras:
            mujoco.mjv_updateScene(model, data, option, perturb, camera, everything, scene)
            for flag in (0, 1):
                scene.flags[segment] = scene.flags[number] = flag
                mujoco.mjr_render(rectangle, scene, mjr)
                mujoco.mjr_readPixels(pixels, None, rectangle, mjr)

    def free() -> None:
        context.make_current()
        mjr.free()
        context.free()

    return step, free
