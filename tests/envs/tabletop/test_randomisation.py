"""Domain randomisation: off by default, within its limits when on, by seed, and without a trace afterwards."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np

from envs.tabletop.env import TabletopEnv
from envs.tabletop.randomisation import CAMERA_SHIFT, CAMERA_TURN, LIGHT_SHARE, LIGHT_TILT, TABLE_SHIFT, SceneLook
from envs.tabletop.scene import load_scene

MakeEnv = Callable[..., TabletopEnv]
Project = Callable[[TabletopEnv, np.ndarray], np.ndarray]


def look(model: mujoco.MjModel) -> dict[str, np.ndarray]:
    return {
        "light_diffuse": model.light_diffuse.copy(),
        "light_dir": model.light_dir.copy(),
        "headlight": model.vis.headlight.diffuse.copy(),
        "rgba": model.geom_rgba.copy(),
        "cam_pos": model.cam_pos.copy(),
        "cam_quat": model.cam_quat.copy(),
    }


def same(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(left[name], right[name]) for name in left)


def test_every_look_stays_within_its_limits() -> None:
    model = load_scene()
    default, applied = look(model), SceneLook(model)
    table, camera = model.geom("table").id, model.camera("front").id
    turns = []
    for seed in range(100):
        applied.apply(np.random.default_rng(seed))
        now = look(model)
        share = now["light_diffuse"] / default["light_diffuse"]
        assert np.all((share >= LIGHT_SHARE[0]) & (share <= LIGHT_SHARE[1]))
        assert np.ptp(share) < 1e-6  # brighter or darker, not coloured
        share = now["headlight"] / default["headlight"]
        assert np.all((share > LIGHT_SHARE[0] - 1e-6) & (share < LIGHT_SHARE[1] + 1e-6))
        assert np.abs(now["light_dir"] - default["light_dir"]).max() <= LIGHT_TILT
        assert np.abs(now["rgba"][table] - default["rgba"][table]).max() <= TABLE_SHIFT + 1e-6
        assert np.abs(now["cam_pos"][camera] - default["cam_pos"][camera]).max() <= CAMERA_SHIFT
        turns.append(2 * np.arccos(min(1.0, abs(float(now["cam_quat"][camera] @ default["cam_quat"][camera])))))
        np.testing.assert_allclose(np.linalg.norm(now["cam_quat"], axis=1), 1.0, atol=1e-9)
        # Nothing else is touched: above all not the objects' colours, which the words are about, nor the wrist camera.
        others = np.arange(model.ngeom) != table
        np.testing.assert_array_equal(now["rgba"][others], default["rgba"][others])
        wrist = model.camera("wrist").id
        np.testing.assert_array_equal(now["cam_pos"][wrist], default["cam_pos"][wrist])
        np.testing.assert_array_equal(now["cam_quat"][wrist], default["cam_quat"][wrist])
    assert 0.5 * CAMERA_TURN < max(turns) <= CAMERA_TURN * 1.001


def test_looks_follow_the_generator_and_leave_no_trace() -> None:
    model = load_scene()
    default, applied = look(model), SceneLook(model)
    applied.apply(np.random.default_rng(1))
    first = look(model)
    applied.apply(np.random.default_rng(2))
    second = look(model)
    applied.apply(np.random.default_rng(1))
    assert same(look(model), first)
    assert not any(np.array_equal(first[name], second[name]) for name in first)
    applied.apply(None)
    assert same(look(model), default)


def test_off_by_default_and_on_by_request(make_env: MakeEnv) -> None:
    plain, varied = make_env("track", cameras=("front",)), make_env("track", cameras=("front",), randomise=True)

    def corners(env: TabletopEnv) -> list[bytes]:
        """The lower corners of the picture, where only table, floor and light are seen."""
        pictures = [env.reset(seed=seed)[0]["pixels"]["front"] for seed in range(6)]
        return [np.concatenate([picture[-2:, :3], picture[-2:, -3:]]).tobytes() for picture in pictures]

    assert len(set(corners(plain))) == 1
    assert len(set(corners(varied))) == 6


def test_the_scene_itself_does_not_depend_on_the_look(make_env: MakeEnv) -> None:
    plain, varied = make_env("track", cameras=("front",)), make_env("track", cameras=("front",), randomise=True)
    for seed in range(5):
        left, right = plain.reset(seed=seed), varied.reset(seed=seed)
        assert left[0]["instruction"] == right[0]["instruction"]
        np.testing.assert_array_equal(plain.layout.paths, varied.layout.paths)
        assert plain.layout.objects == varied.layout.objects


def test_boxes_move_with_the_camera(make_env: MakeEnv, project: Project) -> None:
    env = make_env("reach", cameras=("front",), randomise=True)
    for seed in range(6):
        _, info = env.reset(seed=seed)
        secret = info["privileged"]
        for index in np.flatnonzero(secret["visible"]["front"]):
            box, place = secret["boxes"]["front"][index], secret["positions"][index]
            if np.hypot(*(place[:2] - secret["hand"][:2])) > 0.15:
                assert np.abs(box[:2] - project(env, place)).max() < 0.03
