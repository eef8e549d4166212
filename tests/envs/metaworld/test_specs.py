"""Fifty tasks in the registry, whether Meta-World is installed or not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from metaworld.env_dict import ALL_V3_ENVIRONMENTS, MT10_V3

from envs.contract import check_contract
from envs.metaworld.env import MetaWorldTask
from envs.metaworld.sawyer import VERSION
from envs.metaworld.sisters import SISTERS
from envs.metaworld.specs import CONTROL_HZ, SPECS
from envs.task import find_task, find_tasks, make_task, offers

ROOT = Path(__file__).parents[3]


def test_they_are_those_of_meta_world() -> None:
    assert {f"{name}-v3" for name in SPECS} == set(ALL_V3_ENVIRONMENTS)
    assert len(find_tasks(["metaworld/mt50"])) == 50
    mt10 = find_tasks(["metaworld/mt10"])
    assert {f"{name.removeprefix('metaworld/')}-v3" for name in mt10} == set(MT10_V3)


def test_difficulties_are_as_large_as_published_ones() -> None:
    counts = [
        sum(spec.difficulty == tier for spec in SPECS.values()) for tier in ("easy", "medium", "hard", "very hard")
    ]
    assert counts == [28, 11, 6, 5]


def test_registering_them_loads_neither_meta_world_nor_a_simulator() -> None:
    code = "import sys, envs.task; envs.task.all_tasks(); sys.exit(bool({'metaworld', 'mujoco'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_without_meta_world_they_are_listed_and_making_one_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "metaworld.py").write_text("raise ModuleNotFoundError('none', name='metaworld')")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from vla_policy.cli import main
print(main(["tasks"]))
from envs.task import make_task
make_task("metaworld/reach", cameras=("corner2",), size=32)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.count("metaworld/mt50") == 50
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ValueError: task 'metaworld/reach':")
    assert f"pip install --no-deps metaworld=={VERSION}" in last


def test_everybody_names_the_same_version() -> None:
    for file in ("pyproject.toml", ".ci/setup", "docs/meta-world.md"):
        assert set(re.findall(r"metaworld==([\d.]+\d)", (ROOT / file).read_text())) == {VERSION}, file


@pytest.mark.parametrize("name", ["reach", "drawer-open"])
def test_descriptions_are_right(name: str) -> None:
    spec = find_task(f"metaworld/{name}")
    env = make_task(spec.name, cameras=spec.cameras, size=32)
    check_contract(env, spec, spec.cameras, 32)
    env.close()


def test_all_fifty_can_be_made_and_are_as_described() -> None:
    for name, spec in SPECS.items():
        env = make_task(spec.name, cameras=(), size=32, labels=False)
        bare = env.unwrapped
        observation, info = env.reset(seed=0)
        assert env.spec is not None
        assert env.spec.max_episode_steps == spec.horizon
        assert env.metadata["render_fps"] == CONTROL_HZ == round(1 / bare.dt)  # type: ignore[attr-defined]
        assert observation["agent_pos"].shape == (len(spec.agent_pos_names),)
        assert env.action_space.shape == (len(spec.action_names),)
        assert not info["is_success"]
        assert (offers(env, "counterfactual") is None) == (offers(env, "judge") is None) == (name not in SISTERS)
        camera = bare.model.camera("corner4")  # type: ignore[attr-defined]
        np.testing.assert_allclose(camera.pos, (0.75, 0.075, 0.7))  # where published policies look from
        env.close()


def test_gymnasium_makes_them_too() -> None:
    import gymnasium

    env = gymnasium.make("envs:metaworld/button-press-v3", cameras=(), disable_env_checker=True)
    assert isinstance(env.env.env, MetaWorldTask)  # type: ignore[attr-defined]
    env.close()
