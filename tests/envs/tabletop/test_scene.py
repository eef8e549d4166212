"""The scene: objects look as described, in their slots and nowhere else."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from envs.tabletop.motion import CLEARANCE
from envs.tabletop.objects import COLOURS, SHAPES, SIZES, SLOTS, TableObject, crossed_objects, sample_object
from envs.tabletop.scene import HIDDEN_GROUP, load_scene, show_objects, slot_geoms


def shown(model: mujoco.MjModel, slot: int) -> list[int]:
    return [geom for geom in slot_geoms(model, slot) if model.geom_group[geom] != HIDDEN_GROUP]


def test_there_are_enough_kinds_of_things() -> None:
    assert len(COLOURS) >= 6
    assert len(SHAPES) >= 4
    assert len(SIZES) >= 2
    colours = np.array(list(COLOURS.values()))
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=-1) + 9 * np.eye(len(colours))
    assert apart.min() > 0.35


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", SIZES)
def test_an_object_is_drawn_in_its_colour_and_size_and_fits_its_footprint(shape: str, size: str) -> None:
    model = load_scene()
    one = TableObject(colour="blue", shape=shape, size=size, rgb=(0.1, 0.2, 0.9))
    show_objects(model, [one])
    geoms = shown(model, 0)
    assert len(geoms) == (2 if shape == "cross" else 1)
    for geom in geoms:
        np.testing.assert_allclose(model.geom_rgba[geom], [0.1, 0.2, 0.9, 1.0], atol=1e-6)
        if model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_MESH:
            mesh = model.geom_dataid[geom]
            first, count = model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]
            corners = np.abs(model.mesh_vert[first : first + count])
        elif model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_SPHERE:
            corners = np.array([[model.geom_size[geom, 0], 0.0, model.geom_size[geom, 0]]])
        else:
            corners = model.geom_size[geom][None]
        assert np.linalg.norm(corners[:, :2], axis=1).max() <= one.footprint + CLEARANCE / 2
        assert corners[:, 2].max() == pytest.approx(one.half_height, rel=0.02)
        # Culling and contacts go by these bounds.
        assert model.geom_rbound[geom] >= np.linalg.norm(corners, axis=1).max() * 0.98 or shape == "ball"
    for slot in range(1, SLOTS):
        assert shown(model, slot) == []


def test_showing_other_objects_leaves_nothing_of_the_first() -> None:
    model, fresh = load_scene(), load_scene()
    rng = np.random.default_rng(0)
    first, second = crossed_objects(rng, "train"), [sample_object(rng, "red", "ball")]
    show_objects(model, first)
    assert all(shown(model, slot) for slot in range(SLOTS))
    show_objects(model, second)
    show_objects(fresh, second)
    for slot in range(SLOTS):
        assert shown(model, slot) == shown(fresh, slot)
        for geom in shown(model, slot):
            for field in ("geom_rgba", "geom_size", "geom_rbound", "geom_aabb", "geom_contype", "geom_conaffinity"):
                np.testing.assert_array_equal(getattr(model, field)[geom], getattr(fresh, field)[geom])


def test_hidden_objects_touch_nothing() -> None:
    model = load_scene()
    show_objects(model, [])
    for slot in range(SLOTS):
        for geom in slot_geoms(model, slot):
            assert model.geom_contype[geom] == model.geom_conaffinity[geom] == 0


def test_a_forced_target_comes_first_and_need_not_be_a_training_combination() -> None:
    objects = crossed_objects(np.random.default_rng(0), "train", ("red", "cross"))
    assert objects[0].name == "red cross"
    assert len({o.name for o in objects}) == 4
