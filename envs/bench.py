"""How much of the simulator's own speed the collection of demonstrations keeps.

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

from envs.collect import CollectConfig, run_expert
from envs.episode import split_seed, write_dataset
from envs.registration import make_task

if TYPE_CHECKING:
    from envs.tabletop import TabletopEnv

TURN_EPISODES = 5


def collection_ratio(seconds: float, task: str = "track", config: CollectConfig | None = None) -> dict[str, Any]:
    """Measure one worker's collection against the bare simulator, in simulated control steps per second.

    Failed episodes count as simulated: how many there are is the noise's doing, and `kept_share` tells it.

    Args:
        seconds: how long to measure, both sides together; each gets at least one turn.
        config: how to collect; its `episodes` and `workers` do not matter here.
    """
    config = config or CollectConfig()
    env = make_task(task, cameras=config.cameras, size=config.size, randomise=config.randomise)
    env.reset(seed=split_seed(config.split, config.seed))
    bare_step, free = _bare_step(env)
    steps, kept_steps, raw_seconds, collection_seconds, turn = 0, 0, 0.0, 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        while turn == 0 or raw_seconds + collection_seconds < seconds:
            started = time.perf_counter()
            seeds = [split_seed(config.split, config.seed + turn * TURN_EPISODES + i) for i in range(TURN_EPISODES)]
            runs = [run_expert(env, seed, config.noise, config.detours) for seed in seeds]
            episodes = [episode for episode in runs if episode is not None]
            kept = [episode for episode in episodes if episode.success]
            if kept:
                write_dataset(Path(folder) / str(turn), kept, {})
            collected = time.perf_counter()
            for _ in range(sum(map(len, episodes))):
                bare_step()
            collection_seconds += collected - started
            raw_seconds += time.perf_counter() - collected
            steps += sum(map(len, episodes))
            kept_steps += sum(map(len, kept))
            turn += 1
    gl_renderer = env.gl_renderer
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


def _bare_step(env: TabletopEnv) -> tuple[Callable[[], None], Callable[[], None]]:
    """A function that runs one control step of the scene with MuJoCo's calls alone, and one that frees what it uses."""
    import mujoco
    import numpy as np

    from envs.arm import Arm
    from envs.scene import PARKED, SUBSTEPS, load_scene, show_objects

    model = load_scene()
    show_objects(model, env.layout.objects)
    data = mujoco.MjData(model)
    data.mocap_pos[:] = PARKED
    shown = len(env.layout.objects)
    data.mocap_pos[:shown, :2] = env.layout.paths[:, 0]
    data.mocap_pos[:shown, 2] = [o.half_height for o in env.layout.objects]
    Arm(model, data).reset(env.start_position())

    size, cameras = env.size, []
    for name in env.cameras:
        cameras.append(mujoco.MjvCamera())
        cameras[-1].type, cameras[-1].fixedcamid = int(mujoco.mjtCamera.mjCAMERA_FIXED), model.camera(name).id
    context = mujoco.GLContext(size, size)
    context.make_current()
    mjr = mujoco.MjrContext(model, int(mujoco.mjtFontScale.mjFONTSCALE_50))
    mujoco.mjr_setBuffer(int(mujoco.mjtFramebuffer.mjFB_OFFSCREEN), mjr)
    scene, option, perturb = mujoco.MjvScene(model, maxgeom=200), mujoco.MjvOption(), mujoco.MjvPerturb()
    option.geomgroup[5] = option.sitegroup[:] = 0
    rectangle, pixels = mujoco.MjrRect(0, 0, size, size), np.zeros((size, size, 3), np.uint8)
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
