"""Cameras of one's own, and parts of what a model's cameras see."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from envs.cameras import Middle
from envs.rendering import Renderer

SCENE = """
<mujoco>
  <worldbody>
    <light pos="0 0 3" dir="0 0 -1"/>
    <camera name="top" pos="0 0 2" fovy="60"/>
    <geom type="plane" size="2 2 0.1" rgba="0.2 0.2 0.2 1"/>
    <geom type="box" pos="0.3 0.2 0.1" size="0.1 0.2 0.1" rgba="0.9 0.1 0.1 1"/>
    <geom type="box" pos="-0.9 -0.9 0.1" size="0.1 0.1 0.1" rgba="0.1 0.1 0.9 1"/>
  </worldbody>
</mujoco>
"""


@pytest.fixture
def scene() -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = mujoco.MjModel.from_xml_string(SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


@pytest.mark.parametrize("share", [0.5, 2 / 3, 1.0])
def test_the_middle_is_what_a_crop_shows_in_full_resolution(
    share: float, scene: tuple[mujoco.MjModel, mujoco.MjData]
) -> None:
    model, data = scene
    side, point = 60, np.array([0.3, 0.2, 0.2])
    whole, part = round(side / share), Middle(camera="top", share=share)
    large, small = Renderer(model, whole), Renderer(model, side, cameras={"part": part})
    try:
        margin = (whole - side) // 2
        crop = large.draw(data, "top")[margin : margin + side, margin : margin + side]
        difference = np.abs(crop.astype(int) - small.draw(data, "part").astype(int))
        assert (difference.max(-1) > 8).mean() < 0.01  # edges may fall on the next pixel
        seen, cut = large.in_picture(data, "top", point), small.in_picture(data, "part", point)
        assert seen is not None
        assert cut is not None
        np.testing.assert_allclose(np.array(cut) - 0.5, (np.array(seen) - 0.5) / share, atol=1e-6)
    finally:
        large.close()
        small.close()


def test_a_share_must_be_one() -> None:
    with pytest.raises(ValueError, match=r"share 1\.5 must be above 0 and at most 1"):
        Middle(camera="top", share=1.5)
