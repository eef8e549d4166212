"""Labels of all fifty tasks name what their models have."""

from __future__ import annotations

import numpy as np

from envs.metaworld.env import BACKDROP
from envs.metaworld.sawyer import Sawyer
from envs.metaworld.specs import SPECS
from envs.metaworld.things import THINGS, UNSEEN
from envs.rendering import SHOWN_GROUPS
from envs.segments import Thing

GEOM, SITE = 5, 6  # kinds as MuJoCo numbers them


def drawn(model: object, thing: Thing) -> list[tuple[int, int]]:
    """The parts of a thing that are in a group that is drawn, and not transparent."""
    groups = {GEOM: model.geom_group, SITE: model.site_group}  # type: ignore[attr-defined]
    colours = {GEOM: model.geom_rgba, SITE: model.site_rgba}  # type: ignore[attr-defined]
    parts = thing.parts(model)
    return [(kind, i) for kind, i in parts if groups[kind][i] in SHOWN_GROUPS and colours[kind][i][3] > 0]


def test_every_task_has_things_that_are_drawn() -> None:
    assert set(THINGS) == set(SPECS)
    for name, things in THINGS.items():
        model = Sawyer(name).unwrapped.model  # type: ignore[attr-defined]
        assert not (np.asarray(model.geom_group) == BACKDROP).any(), name
        for thing in things:
            assert bool(drawn(model, thing)) == (thing != UNSEEN), (name, thing)
    assert [name for name, things in THINGS.items() if UNSEEN in things] == ["sweep"]


def test_goals_that_are_markers_are_where_the_state_says() -> None:
    marked = 0
    for name, (_, goal) in THINGS.items():
        if not goal.sites or goal == UNSEEN:
            continue
        env = Sawyer(name)
        state, _ = env.reset(seed=3)
        place = env.unwrapped.data.site(goal.sites[0]).xpos  # type: ignore[attr-defined]
        np.testing.assert_allclose(place, state[-3:], atol=1e-6, err_msg=name)
        marked += 1
    assert marked == 20


def test_the_windows_handle_is_white() -> None:
    model = Sawyer("window-open").unwrapped.model  # type: ignore[attr-defined]
    handle, _ = THINGS["window-open"]
    assert {model.mat(model.geom_matid[geom]).name for geom in handle.geoms} == {"window_white"}
