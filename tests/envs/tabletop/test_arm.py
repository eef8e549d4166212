"""The arm: real joints within their limits, and a hand that goes where the command says, inside the workspace."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from envs.tabletop.arm import (
    ACTION_NAMES,
    AGENT_POS_HIGH,
    AGENT_POS_LOW,
    AGENT_POS_NAMES,
    MAX_SPEED,
    MAX_YAW,
    RAMP,
    WORKSPACE,
    Arm,
)
from envs.tabletop.scene import ARM_JOINTS, CONTROL_HZ, FINGER_JOINTS, FINGER_RANGE, PARKED, load_scene

CENTRE = np.array([0.0, 0.0, 0.15])
LAG = 0.004  # metres the servos may stay behind the reference
OVERSHOOT = 0.02  # metres: joints of unequal lag carry a hand at full speed past a bound for a few steps
SECOND = CONTROL_HZ


@pytest.fixture
def arm() -> Arm:
    model = load_scene()
    data = mujoco.MjData(model)
    data.mocap_pos[:] = PARKED
    arm = Arm(model, data)
    arm.reset(CENTRE)
    return arm


def command(**values: float) -> np.ndarray:
    return np.array([values.get(name, 0.0) for name in ACTION_NAMES])


def drive(arm: Arm, action: np.ndarray, steps: int) -> np.ndarray:
    """Positions of the pinch point after each of the steps (steps, 3)."""
    positions = []
    for _ in range(steps):
        arm.step(action)
        positions.append(arm.position)
    return np.array(positions)


def yaw(arm: Arm) -> float:
    values = dict(zip(AGENT_POS_NAMES, arm.agent_pos(), strict=True))
    return float(np.arctan2(values["yaw_sin"], values["yaw_cos"]))


def tilt(arm: Arm) -> float:
    """Angle between the hand's axis and the vertical, radians."""
    return float(np.arccos(np.clip(arm.data.site("pinch").xmat[8], -1, 1)))


def test_poses_are_those_of_the_joints_after_a_step(arm: Arm) -> None:
    poses = ("xpos", "xquat", "site_xpos", "site_xmat", "geom_xpos", "geom_xmat", "cam_xpos", "cam_xmat", "light_xpos")
    for action in (command(dx=1.0, dy=-1.0), command(dx=1.0, dz=1.0, yaw_rate=1.0), command(dx=-1.0)):
        arm.step(action, [np.full_like(arm.data.mocap_pos, part) for part in range(RAMP)])
        now = mujoco.MjData(arm.model)
        now.qpos[:], now.mocap_pos[:] = arm.data.qpos, arm.data.mocap_pos
        mujoco.mj_forward(arm.model, now)
        for name in poses:
            np.testing.assert_allclose(getattr(arm.data, name), getattr(now, name), atol=1e-12, err_msg=name)


def test_the_model_is_a_real_arm(arm: Arm) -> None:
    model = arm.model
    assert np.linalg.norm(model.opt.gravity) == pytest.approx(9.81)
    for name in (*ARM_JOINTS, *FINGER_JOINTS):
        joint = model.joint(name)
        assert model.jnt_limited[joint.id]
        assert joint.range[0] < joint.range[1]
    assert model.nu == len(ARM_JOINTS) + len(FINGER_JOINTS)
    assert model.actuator_forcelimited.all()
    assert model.actuator_ctrllimited.all()
    moving = model.jnt_bodyid
    assert (model.body_mass[moving] > 0).all()
    assert (model.body_mocapid[moving] < 0).all()


@pytest.mark.parametrize("corner", range(8))
def test_reset_puts_the_hand_at_rest_where_asked(arm: Arm, corner: int) -> None:
    place = np.where([corner & 1, corner & 2, corner & 4], WORKSPACE[1], WORKSPACE[0])
    arm.reset(place, yaw=0.5, opening=0.01)
    np.testing.assert_allclose(arm.position, place, atol=2e-3)
    assert yaw(arm) == pytest.approx(0.5, abs=0.01)
    assert tilt(arm) < 0.01
    rest = drive(arm, command(), SECOND)
    np.testing.assert_allclose(rest, np.broadcast_to(place, rest.shape), atol=LAG)


def test_a_place_outside_the_workspace_becomes_the_nearest_inside(arm: Arm) -> None:
    arm.reset(np.array([9.0, -9.0, 0.1]))
    np.testing.assert_allclose(arm.position, [WORKSPACE[1, 0], WORKSPACE[0, 1], 0.1], atol=2e-3)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("share", [-1.0, -0.4, 0.4, 1.0])
def test_a_velocity_command_moves_the_hand_that_way_that_far(arm: Arm, axis: int, share: float) -> None:
    steps = 6
    action = np.zeros(len(ACTION_NAMES))
    action[axis] = share
    drive(arm, action, steps)
    settled = drive(arm, command(), 4)[-1]
    moved = np.zeros(3)
    moved[axis] = share * MAX_SPEED[axis] * steps / CONTROL_HZ
    np.testing.assert_allclose(settled - CENTRE, moved, atol=LAG)
    assert tilt(arm) < 0.03
    assert abs(yaw(arm)) < 0.03


def test_a_command_acts_within_a_control_step(arm: Arm) -> None:
    moved = drive(arm, command(dx=1.0), 3)
    assert moved[0, 0] - CENTRE[0] > 0.2 * MAX_SPEED[0] / CONTROL_HZ
    assert moved[2, 0] - CENTRE[0] > 0.6 * 3 * MAX_SPEED[0] / CONTROL_HZ


@pytest.mark.parametrize("corner", range(8))
def test_workspace_bounds_hold(arm: Arm, corner: int) -> None:
    signs = np.where([corner & 1, corner & 2, corner & 4], 1.0, -1.0)
    positions = drive(arm, np.array([*signs, 0.0, 0.0]), 3 * SECOND)
    assert (positions >= WORKSPACE[0] - LAG).all()  # above all the table's side
    assert (positions <= WORKSPACE[1] + OVERSHOOT).all()
    np.testing.assert_allclose(positions[-1], np.where(signs > 0, WORKSPACE[1], WORKSPACE[0]), atol=LAG)
    back = drive(arm, np.array([*-signs, 0.0, 0.0]), 4)  # nothing winds up while the bound holds
    assert ((back[-1] - positions[-1]) * -signs > 0.005).all()


@pytest.mark.parametrize("direction", [-1.0, 1.0])
def test_yaw_turns_the_hand_on_the_spot(arm: Arm, direction: float) -> None:
    positions = drive(arm, command(yaw_rate=direction), 8)
    drive(arm, command(), 5)
    assert yaw(arm) == pytest.approx(direction * 8 * MAX_SPEED[3] / CONTROL_HZ, abs=0.03)
    np.testing.assert_allclose(positions, np.broadcast_to(CENTRE, positions.shape), atol=2 * LAG)
    drive(arm, command(yaw_rate=direction), 2 * SECOND)
    assert yaw(arm) == pytest.approx(direction * MAX_YAW, abs=0.03)
    assert tilt(arm) < 0.03


def test_the_gripper_opens_and_closes(arm: Arm) -> None:
    fingers = [arm.data.joint(name) for name in FINGER_JOINTS]
    drive(arm, command(gripper=1.0), SECOND)
    assert [float(finger.qpos[0]) for finger in fingers] == pytest.approx([FINGER_RANGE] * 2, abs=1e-3)
    assert arm.agent_pos()[AGENT_POS_NAMES.index("opening")] == pytest.approx(FINGER_RANGE, abs=1e-3)
    drive(arm, command(gripper=-1.0), SECOND)
    assert [float(finger.qpos[0]) for finger in fingers] == pytest.approx([0.0] * 2, abs=1e-3)
    drive(arm, command(gripper=0.5), 4)
    drive(arm, command(), 4)
    assert fingers[0].qpos[0] == pytest.approx(0.5 * MAX_SPEED[4] * 4 / CONTROL_HZ, abs=1e-3)


def test_joint_and_force_limits_hold_under_wild_commands(arm: Arm) -> None:
    model, data = arm.model, arm.data
    rng = np.random.default_rng(0)
    low, high = model.jnt_range.T
    for _ in range(40):
        action = rng.choice([-1.0, 1.0], len(ACTION_NAMES))
        for _ in range(rng.integers(2, 12)):
            arm.step(action)
            assert (data.qpos >= low - 2e-3).all()
            assert (data.qpos <= high + 2e-3).all()
            assert (data.actuator_force >= model.actuator_forcerange[:, 0]).all()
            assert (data.actuator_force <= model.actuator_forcerange[:, 1]).all()
            assert (arm.agent_pos() >= AGENT_POS_LOW).all()
            assert (arm.agent_pos() <= AGENT_POS_HIGH).all()
            assert (arm.position >= WORKSPACE[0] - OVERSHOOT).all()
            assert (arm.position <= WORKSPACE[1] + OVERSHOOT).all()
            assert arm.position[2] > WORKSPACE[0, 2] - LAG
            assert tilt(arm) < 0.06
    assert not data.warning.number.any()


def test_no_joint_is_at_its_limit_inside_the_workspace(arm: Arm) -> None:
    grid = [np.linspace(low, high, 4) for low, high in WORKSPACE.T]
    for place in np.stack(np.meshgrid(*grid), axis=-1).reshape(-1, 3):
        for turn in (-MAX_YAW, 0.0, MAX_YAW):
            arm.reset(place, yaw=turn)
            np.testing.assert_allclose(arm.position, place, atol=3e-3)
            for name in ARM_JOINTS:
                low, high = arm.model.joint(name).range
                assert low + 0.02 < arm.data.joint(name).qpos[0] < high - 0.02, (name, place, turn)


def test_proprioception_reads_the_simulation(arm: Arm) -> None:
    drive(arm, command(dx=0.5, dy=-0.3, yaw_rate=0.5), 10)
    values = dict(zip(AGENT_POS_NAMES, arm.agent_pos(), strict=True))
    assert [values[f"ee_{axis}"] for axis in "xyz"] == pytest.approx(arm.position)
    assert values["yaw_sin"] ** 2 + values["yaw_cos"] ** 2 == pytest.approx(1.0, abs=1e-2)
    for name in ARM_JOINTS:
        assert values[name] == pytest.approx(arm.data.joint(name).qpos[0])


def test_moving_objects_follow_the_ticks(arm: Arm) -> None:
    def at(x: float) -> np.ndarray:
        return np.full((4, 3), x)

    arm.step(command(), [at(0.1), at(0.2), at(0.3), at(0.4), at(0.5)])
    np.testing.assert_array_equal(arm.data.mocap_pos, at(0.5))
    np.testing.assert_allclose(arm.data.body("object0").xpos, at(0.5)[0])


def test_the_hand_follows_a_moving_target_as_closely_as_the_tasks_ask(arm: Arm) -> None:
    def follow(t: float) -> np.ndarray:
        return CENTRE[:2] + 0.08 * np.array([np.cos(1.5 * t), np.sin(1.5 * t)])

    gaps = []
    for step in range(4 * SECOND):
        now, ahead = follow(step / CONTROL_HZ), follow((step + 1) / CONTROL_HZ)
        speed = (ahead - now) * CONTROL_HZ + 4.0 * (ahead - arm.position[:2])
        dx, dy = np.clip(speed / MAX_SPEED[:2], -1, 1)
        arm.step(command(dx=dx, dy=dy))
        gaps.append(np.linalg.norm(arm.position[:2] - ahead))
    assert max(gaps[SECOND:]) < 0.02
