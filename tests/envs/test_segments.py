"""The renderer with models of anybody's: things, cameras, looks, against MuJoCo's and Gymnasium's own pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import mujoco
import numpy as np
import pytest

from envs.cameras import LookAt
from envs.gl import choose_gl_backend
from envs.rendering import Renderer
from envs.segments import MIN_VISIBLE_PIXELS, Thing

SIZE = 96
MODEL = """
<mujoco>
  <statistic extent="1" center="0 0 0"/>
  <visual><quality offsamples="4" shadowsize="512"/></visual>
  <worldbody>
    <light pos="0.5 0.5 2" dir="-0.2 -0.2 -1"/>
    <camera name="above" pos="0 0 2" fovy="50"/>
    <camera name="aside" pos="1.2 -0.3 0.8" xyaxes="0.24 0.97 0 -0.5 0.12 0.86"/>
    <geom name="floor" type="plane" size="2 2 0.1" rgba="0.5 0.5 0.5 1" group="1"/>
    <body name="arm" pos="0.3 0 0.1">
      <geom name="upper" size="0.08" rgba="1 0 0 1"/>
      <body name="hand" pos="0.1 0.2 0.1">
        <geom name="palm" type="box" size="0.05 0.1 0.02" rgba="0 1 0 1"/>
        <body pos="0 0.15 0"><geom name="tip" type="capsule" size="0.02 0.04" rgba="0 0 1 1"/></body>
      </body>
    </body>
    <body name="empty" pos="0 0 1"/>
    <site name="goal" pos="-0.3 0.2 0.1" size="0.06" rgba="1 1 0 1"/>
    <site name="unseen" pos="-0.3 -0.2 0.1" size="0.06" group="4"/>
    <geom name="ghost" pos="-0.3 -0.4 0.1" size="0.06" group="4"/>
    {more}
  </worldbody>
</mujoco>"""

MakeRenderer = Callable[..., Renderer]


@pytest.fixture
def make_renderer() -> Iterator[MakeRenderer]:
    made: list[Renderer] = []

    def make(*args: Any, **kwargs: Any) -> Renderer:
        made.append(Renderer(*args, **kwargs))
        return made[-1]

    yield make
    for renderer in made:
        renderer.close()


def load(more: str = "") -> tuple[mujoco.MjModel, mujoco.MjData]:
    choose_gl_backend()
    model = mujoco.MjModel.from_xml_string(MODEL.format(more=more))
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def boxed(model: mujoco.MjModel, data: mujoco.MjData, camera: str, parts: list[tuple[str, str]]) -> np.ndarray:
    """The box around named geoms and sites, pixel by pixel from MuJoCo's own renderer."""
    kinds = {"geom": mujoco.mjtObj.mjOBJ_GEOM, "site": mujoco.mjtObj.mjOBJ_SITE}
    with mujoco.Renderer(model, SIZE, SIZE) as renderer:
        renderer.enable_segmentation_rendering()
        renderer.update_scene(data, camera)
        segments = renderer.render().copy()
    mask = np.zeros((SIZE, SIZE), bool)
    for kind, name in parts:
        number = mujoco.mj_name2id(model, kinds[kind], name)
        mask |= (segments[:, :, 0] == number) & (segments[:, :, 1] == int(kinds[kind]))
    rows, columns = np.nonzero(mask)
    if len(rows) < MIN_VISIBLE_PIXELS:
        return np.zeros(4)
    low, high = np.array([columns.min(), rows.min()]), np.array([columns.max() + 1, rows.max() + 1])
    return np.concatenate([(low + high) / 2, high - low]) / SIZE


THINGS = (
    (Thing(geoms=("upper",)), [("geom", "upper")]),
    (Thing(bodies=("hand",)), [("geom", "palm")]),
    (Thing(bodies=("hand",), subtree=True), [("geom", "palm"), ("geom", "tip")]),
    (Thing(bodies=("arm",), subtree=True), [("geom", "upper"), ("geom", "palm"), ("geom", "tip")]),
    (Thing(sites=("goal",)), [("site", "goal")]),
    (Thing(geoms=("tip",), sites=(0,)), [("geom", "tip"), ("site", "goal")]),
    (Thing(geoms=("ghost",)), []),
    (Thing(sites=("unseen",)), []),
    (Thing(bodies=(1, 2)), [("geom", "upper"), ("geom", "palm")]),
    (Thing(geoms=("tip",)), [("geom", "tip")]),
)


@pytest.mark.parametrize("count", [0, 1, 8, len(THINGS)])
@pytest.mark.parametrize("camera", ["above", "aside"])
def test_boxes_of_any_things(camera: str, count: int, make_renderer: MakeRenderer) -> None:
    model, data = load()
    renderer = make_renderer(model, SIZE, things=[thing for thing, _ in THINGS[:count]], stock=True)
    _, boxes, counts = renderer.draw_with_boxes(data, camera)
    assert (boxes.shape, boxes.dtype, counts.shape) == ((count, 4), np.float32, (count,))
    for box, seen, (_, parts) in zip(boxes, counts, THINGS, strict=False):
        expected = boxed(model, data, camera, parts)
        np.testing.assert_allclose(box, expected, atol=1e-6)
        assert (seen >= MIN_VISIBLE_PIXELS) == bool(expected.any())


@pytest.mark.parametrize("number", [200, 240, 260, 700])
def test_more_geoms_than_one_byte_counts(number: int, make_renderer: MakeRenderer) -> None:
    places = np.random.default_rng(0).uniform(-0.7, 0.7, (number, 2))
    more = "".join(
        f'<geom name="g{i}" type="box" size="0.02 0.02 0.02" pos="{x} {y} 0.02"/>' for i, (x, y) in enumerate(places)
    )
    model, data = load(more)
    names = [f"g{i}" for i in (0, 17, number // 2, number - 1)]
    renderer = make_renderer(model, SIZE, things=[Thing(geoms=(name,)) for name in names])
    _, boxes, _ = renderer.draw_with_boxes(data, "above")
    expected = [boxed(model, data, "above", [("geom", name)]) for name in names]
    np.testing.assert_allclose(boxes, expected, atol=1e-6)
    assert np.count_nonzero(boxes[:, 2]) >= 2


def test_what_is_shown_or_hidden_later_is_known_at_once_or_when_told(make_renderer: MakeRenderer) -> None:
    model, data = load()
    renderer = make_renderer(model, SIZE, things=[Thing(geoms=("upper",)), Thing(geoms=("tip",))])
    before = renderer.draw_with_boxes(data, "above")[1]
    model.geom("upper").group[:] = 5
    after = renderer.draw_with_boxes(data, "above")[1]
    assert not after[0].any()
    np.testing.assert_array_equal(after[1], before[1])
    model.geom("upper").group[:], model.geom("tip").group[:] = 0, 5
    renderer.forget_episode()
    np.testing.assert_array_equal(renderer.draw_with_boxes(data, "above")[1][0], before[0])


def test_groups_say_what_is_drawn(make_renderer: MakeRenderer) -> None:
    model, data = load()
    things = [Thing(geoms=("ghost",)), Thing(sites=("unseen",)), Thing(sites=("goal",)), Thing(geoms=("upper",))]
    usual = make_renderer(model, SIZE, things=things)
    other = make_renderer(model, SIZE, things=things, geom_groups=(0, 1, 4), site_groups=(4,), backdrop_groups=(1,))
    np.testing.assert_array_equal(usual.draw_with_boxes(data, "above")[2] > 0, [False, False, True, True])
    np.testing.assert_array_equal(other.draw_with_boxes(data, "above")[2] > 0, [True, True, False, True])
    assert not np.array_equal(usual.draw(data, "above"), other.draw(data, "above"))


# Cameras.


def test_a_place_of_ones_own_is_a_camera_like_the_models(make_renderer: MakeRenderer) -> None:
    model, data = load()
    cameras = {
        "mine": LookAt(position=(0, 0, 2), target=(0, 0, 0), fovy=50),
        "turned": LookAt(position=(0, 0, 2), target=(0, 0, 0), fovy=50, azimuth=180),
        "usual": LookAt(position=(0, 0, 2), target=(0, 0, 0)),
    }
    renderer = make_renderer(model, SIZE, things=[Thing(bodies=("arm",), subtree=True)], cameras=cameras)
    picture, boxes, _ = renderer.draw_with_boxes(data, "above")
    own, own_boxes, _ = renderer.draw_with_boxes(data, "mine")
    np.testing.assert_array_equal(own, picture)
    np.testing.assert_array_equal(own_boxes, boxes)
    turned, turned_boxes, _ = renderer.draw_with_boxes(data, "turned")
    assert np.abs(np.rot90(picture, -1).astype(int) - turned).mean() < 1  # what was to the left is up
    np.testing.assert_allclose(turned_boxes[0, [3, 2]], boxes[0, 2:], atol=2.1 / SIZE)
    assert renderer.draw_with_boxes(data, "usual")[1][0, 2] > boxes[0, 2]  # 45 degrees see less
    np.testing.assert_array_equal(renderer.draw(data, "above"), picture)  # and nothing is left of it


def test_upside_down_pictures_and_their_boxes_are_turned(make_renderer: MakeRenderer) -> None:
    model, data = load()
    things = [Thing(geoms=("upper",)), Thing(geoms=("ghost",)), Thing(bodies=("hand",))]
    plain = make_renderer(model, SIZE, things=things)
    turned = make_renderer(model, SIZE, things=things, upside_down=("aside",))
    (picture, boxes, counts), (other, others, other_counts) = (
        r.draw_with_boxes(data, "aside") for r in (plain, turned)
    )
    np.testing.assert_array_equal(other, picture[::-1, ::-1])
    np.testing.assert_array_equal(other_counts, counts)
    np.testing.assert_allclose(others[[0, 2], :2], 1 - boxes[[0, 2], :2], atol=1e-6)
    np.testing.assert_array_equal(others[:, 2:], boxes[:, 2:])
    np.testing.assert_array_equal(others[1], 0)
    np.testing.assert_array_equal(turned.draw(data, "above"), plain.draw(data, "above"))


@pytest.mark.parametrize("env_id", ["Reacher-v5", "Hopper-v5", "Ant-v5"])
def test_stock_pictures_are_those_of_gymnasium(env_id: str, make_renderer: MakeRenderer) -> None:
    choose_gl_backend()
    env = gymnasium.make(env_id, render_mode="rgb_array", width=SIZE, height=SIZE)
    env.reset(seed=0)
    theirs = env.render()
    inner: Any = env.unwrapped
    free = inner.mujoco_renderer.viewer.cam  # MuJoCo's own class, as they set it up
    config = {name: getattr(free, name) for name in ("lookat", "distance", "azimuth", "elevation")}
    renderer = make_renderer(inner.model, SIZE, cameras={"same": free, "config": config}, stock=True)
    for camera in ("same", "config"):
        assert np.abs(renderer.draw(inner.data, camera).astype(int) - theirs).mean() < 0.5
    fast = make_renderer(inner.model, SIZE, cameras={"same": free})
    assert fast.draw(inner.data, "same").std() > 5
    assert inner.model.vis.quality.offsamples == 4  # the model is as it was
    env.close()


def test_a_camera_that_follows_a_body_depends_on_the_state_alone(make_renderer: MakeRenderer) -> None:
    choose_gl_backend()
    env: Any = gymnasium.make("Hopper-v5").unwrapped
    env.reset(seed=0)
    view = {"follow": {"trackbodyid": 1, "distance": 3.0, "elevation": -20.0}}
    used, fresh = make_renderer(env.model, SIZE, cameras=view), make_renderer(env.model, SIZE, cameras=view)
    used.draw(env.data, "follow")
    env.data.qpos[0] = 5.0
    mujoco.mj_forward(env.model, env.data)
    np.testing.assert_array_equal(used.draw(env.data, "follow"), fresh.draw(env.data, "follow"))
    env.close()


def test_stock_keeps_shadows_and_the_rest_leaves_them_out(make_renderer: MakeRenderer) -> None:
    model, data = load()
    stock, fast = make_renderer(model, SIZE, stock=True), make_renderer(model, SIZE)
    floor = [renderer.draw(data, "above")[:, :, 0].astype(int) for renderer in (stock, fast)]
    assert np.count_nonzero(floor[1] - floor[0] > 10) > 50  # darker where the shadow lies
    assert (model.vis.quality.offsamples, model.vis.quality.shadowsize) == (4, 512)


# What cannot be.


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"things": [Thing(geoms=("uper",))]}, r"geom 'uper' is unknown \(did you mean upper\?\); choose one of floor"),
        ({"things": [Thing(bodies=("han",))]}, r"body 'han' is unknown \(did you mean hand\?\)"),
        ({"things": [Thing(sites=("gaol",))]}, r"site 'gaol' is unknown \(did you mean goal\?\)"),
        ({"things": [Thing(geoms=(99,))]}, r"geom 99 must be one of the model's 5, counted from 0"),
        ({"things": [Thing()]}, r"is nothing that could be seen"),
        ({"things": [Thing(bodies=("empty",))]}, r"is nothing that could be seen"),
        ({"cameras": {"x": "abov"}}, r"camera 'abov' is unknown \(did you mean above\?\)"),
        ({"cameras": {"x": {"lokat": (0, 0, 0)}}}, r"camera setting 'lokat' is unknown \(did you mean lookat\?\)"),
        ({"cameras": {"x": {"trackbodyid": 77}}}, r"trackbodyid 77 must be one of the model's"),
        ({"upside_down": ("top",)}, r"camera 'top' is unknown"),
        ({"geom_groups": (0, 6)}, r"groups \[0, 6\] must lie between 0 and 5"),
    ],
)  # fmt: skip
def test_what_a_model_does_not_have_is_refused_in_one_line(settings: dict[str, Any], message: str) -> None:
    model, _ = load()
    with pytest.raises(ValueError, match=message) as caught:
        Renderer(model, SIZE, **settings)
    assert "\n" not in str(caught.value)


def test_a_camera_or_a_size_that_cannot_be(make_renderer: MakeRenderer) -> None:
    model, data = load()
    with pytest.raises(ValueError, match="camera 'front' is unknown; choose one of above, aside"):
        make_renderer(model, SIZE).draw(data, "front")
    bare = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
    with pytest.raises(ValueError, match="camera 'front' is unknown; the model has no camera"):
        make_renderer(bare, SIZE).draw(mujoco.MjData(bare), "front")
    with pytest.raises(ValueError, match="size 0 must be at least 1"):
        Renderer(model, 0)
    for bad in ({"target": (0, 0, 2)}, {"target": (0, 0, float("nan"))}, {"target": (0, 0, 0), "fovy": 180}):
        with pytest.raises(ValueError, match="must"):
            LookAt(position=(0, 0, 2), **bad)  # type: ignore[arg-type]
