"""How a robot is seen and driven: the names and the rate that a task, its demonstrations and a policy must agree on."""

from __future__ import annotations

from dataclasses import dataclass

RATES = (0.001, 100_000.0)  # control steps per second of any robot; others are mistakes, and videos cannot have them


@dataclass(frozen=True, kw_only=True)
class RobotInterface:
    """Names of the dimensions of actions and of proprioception (`agent_pos`), in their order; names of the cameras; and
    control steps per second. None is a rate that was not written down.
    """

    action_names: tuple[str, ...]
    agent_pos_names: tuple[str, ...]
    cameras: tuple[str, ...]
    control_hz: float | None = None

    def __post_init__(self) -> None:
        for kind in ("action_names", "agent_pos_names", "cameras"):
            names = getattr(self, kind)
            if not names or not all(isinstance(name, str) and name for name in names):
                raise ValueError(f"{kind} {list(names)} must be one or more names")
            if len(set(names)) != len(names):
                raise ValueError(f"{kind} {list(names)} must name each once")
        if self.control_hz is not None and not RATES[0] <= self.control_hz <= RATES[1]:
            raise ValueError(f"control_hz {self.control_hz} must be a number from {RATES[0]:g} to {RATES[1]:g}")


def check_same_robot(one: RobotInterface, other: RobotInterface, names: tuple[str, str]) -> None:
    """Refuse two sources of which one policy cannot learn: other proprioception, or another control rate.

    Their actions may differ: a policy has all of them, and leaves those out that a task has not.

    Args:
        names: what the two are called, for example the paths of two datasets.

    Raises:
        ValueError: they differ; the message says in what, with both values.
    """
    if one.agent_pos_names != other.agent_pos_names:
        a, b = _first_difference(one.agent_pos_names, other.agent_pos_names)
        raise ValueError(
            f"agent_pos_names of {names[0]} and {names[1]} differ, first {a} and {b}; both must be the same robot, "
            "with the same names in the same order"
        )
    if None not in (one.control_hz, other.control_hz) and one.control_hz != other.control_hz:
        raise ValueError(
            f"control_hz of {names[0]} is {one.control_hz:g}, of {names[1]} {other.control_hz:g}; "
            "one policy decides at one rate"
        )


def check_policy_serves(policy: RobotInterface, task: RobotInterface, name: str, trained_on: str) -> None:
    """Refuse a policy that cannot act in a task, because it sees, feels or moves another robot.

    Args:
        name: the task's. trained_on: what the policy was trained on, in words.

    Raises:
        ValueError: it cannot; the message says what the task needs and the policy has.
    """
    for action in task.action_names:
        if action not in policy.action_names:
            raise ValueError(
                f"task {name!r} needs action {action!r}, the policy gives {', '.join(policy.action_names)} "
                f"(trained on {trained_on}); choose one of its tasks"
            )
    for camera in policy.cameras:
        if camera not in task.cameras:
            raise ValueError(
                f"the policy sees camera {camera!r}, task {name!r} offers {', '.join(task.cameras)} "
                f"(the policy was trained on {trained_on}); choose one of its tasks"
            )
    check_same_robot(policy, task, (f"the policy (trained on {trained_on})", f"task {name!r}"))


def _first_difference(one: tuple[str, ...], other: tuple[str, ...]) -> tuple[str, str]:
    for i in range(max(len(one), len(other))):
        a, b = (repr(names[i]) if i < len(names) else "nothing" for names in (one, other))
        if a != b:
            return a, b
    return "nothing", "nothing"
