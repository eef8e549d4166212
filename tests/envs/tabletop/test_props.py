"""Screen and lamp: hidden unless shown, without contact, and what the screen hides."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np
import pytest

from envs.gl import choose_gl_backend
from envs.tabletop.env import TabletopEnv
from envs.tabletop.motion import REGION
from envs.tabletop.objects import SHAPES, TableObject
from envs.tabletop.props import light_lamp, show_props, under_screen
from envs.tabletop.scene import HIDDEN_GROUP, LAMP_COLOURS, PARKED, load_scene, scene_renderer, show_objects

MakeEnv = Callable[..., TabletopEnv]
PROPS = ("screen", "lamp/base", "lamp/head")


def test_props_are_hidden_unless_shown_and_touch_nothing() -> None:
    model = load_scene()

    def shown() -> list[str]:
        return [name for name in PROPS if model.geom(name).group[0] != HIDDEN_GROUP]

    assert shown() == []
    show_props(model, screen=0.01, lamp=False)
    assert shown() == ["screen"]
    assert model.geom("screen").pos[1] == 0.01
    show_props(model, screen=None, lamp=True)
    assert shown() == ["lamp/base", "lamp/head"]
    light_lamp(model, green=True)
    np.testing.assert_allclose(model.geom("lamp/head").rgba[:3], LAMP_COLOURS["green"], atol=1e-6)
    show_props(model, screen=None, lamp=True)  # the next episode begins red
    np.testing.assert_allclose(model.geom("lamp/head").rgba[:3], LAMP_COLOURS["red"], atol=1e-6)
    for name in PROPS:
        assert model.geom(name).contype[0] == model.geom(name).conaffinity[0] == 0


def test_the_other_tasks_have_none(make_env: MakeEnv) -> None:
    for task in ("reach", "track", "track_motion"):
        env = make_env(task, cameras=(), labels="none", size=16)
        env.reset(seed=0)
        assert all(env.model.geom(name).group[0] == HIDDEN_GROUP for name in PROPS)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_said_to_be_under_the_screen_is_hidden_wherever_it_is_along_it(shape: str) -> None:
    choose_gl_backend()
    model = load_scene()
    for geom in range(model.ngeom):
        if model.geom_bodyid[geom] != 0 and model.body_mocapid[model.geom_bodyid[geom]] < 0:
            model.geom_group[geom] = HIDDEN_GROUP  # no arm: only the screen hides
    one = TableObject(colour="red", shape=shape, size="small", yaw=0.3, rgb=(0.9, 0.1, 0.1))
    show_objects(model, [one])
    data, renderer = mujoco.MjData(model), scene_renderer(model, 64)
    data.mocap_pos[:] = PARKED
    for screen in (-0.015, 0.015):
        show_props(model, screen=screen, lamp=False)
        renderer.forget_episode()
        late = 0
        for x in np.linspace(REGION[0, 0], REGION[1, 0], 5):
            for y in np.linspace(REGION[0, 1], REGION[1, 1], 39):
                data.mocap_pos[0] = (x, y, one.half_height)
                mujoco.mj_forward(model, data)
                pixels = int(renderer.draw_with_boxes(data, "front")[2][0])
                hidden = under_screen(screen, np.array(y), radius=one.footprint, height=2 * one.half_height)
                assert not (hidden and pixels)
                late += int(pixels == 0 and not hidden)
        assert late <= 4 * 5  # at most two of the places 1 cm apart on each side, in each row
    renderer.close()
