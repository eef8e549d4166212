"""Tasks of somebody else's: no MuJoCo, one picture of 32 pixels, actions in a unit of their own, five steps a second.

A white dot is driven over a grey picture, on which there are two dots more; the words name one of them. The second task
has labels as well, the third knows no expert. Tests name this file to `--task-module`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from envs.task import TaskSpec, register_task

COLOURS = {"red": (250, 30, 30), "green": (30, 250, 30)}
HORIZON, RATE = 12, 5
NEAR = 3.0  # pixels
SIDE = 4  # of a dot, pixels
STEP = 2.0  # pixels that an action of 1 moves the hand


class DotsEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
    """Drive the white dot to the one that is named, and stay."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": [], "render_fps": RATE}  # type: ignore[misc]

    def __init__(self, *, cameras: tuple[str, ...] = ("top",), size: int = 32, labelled: bool = False) -> None:
        self.cameras, self.size, self.labelled = cameras, size, labelled
        picture = spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.observation_space = spaces.Dict(
            {
                "pixels": spaces.Dict(dict.fromkeys(cameras, picture)),
                "agent_pos": spaces.Box(0, size, (2,), np.float32),
            }
        )
        self.action_space = spaces.Box(-2, 3, (2,), np.float32)
        self.task_description = ""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.step_count = 0
        self.hand = self.np_random.uniform(SIDE, self.size - SIDE, 2)
        left = self.np_random.uniform(SIDE, self.size / 2 - SIDE, 2)
        self.dots = np.stack([left, left + self.size / 2])
        self.target = int(self.np_random.integers(len(COLOURS)))
        self.task_description = f"go to the {list(COLOURS)[self.target]} dot"
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.hand = np.clip(self.hand + STEP * action, 0, self.size)
        self.step_count += 1
        return self._observation(), 0.0, False, False, self._info()  # the registered horizon ends it

    def _observation(self) -> dict[str, Any]:
        picture = np.full((self.size, self.size, 3), 90, np.uint8)
        for (x, y), colour in [*zip(self.dots, COLOURS.values(), strict=True), (self.hand, (255, 255, 255))]:
            row, column = (round(max(0.0, at - SIDE / 2)) for at in (y, x))
            picture[row : row + SIDE, column : column + SIDE] = colour
        return {"pixels": dict.fromkeys(self.cameras, picture), "agent_pos": self.hand.astype(np.float32)}

    def _info(self) -> dict[str, Any]:
        info: dict[str, Any] = {"is_success": bool(np.linalg.norm(self.dots[self.target] - self.hand) < NEAR)}
        if self.labelled:
            boxes = np.concatenate([self.dots, np.full((2, 2), SIDE)], axis=1).astype(np.float32) / self.size
            seen = {"boxes": boxes, "visible": np.ones(2, bool)}
            info["privileged"] = {
                "target": self.target,
                **{name: dict.fromkeys(self.cameras, value) for name, value in seen.items()},
            }
        return info


def expert(env: gymnasium.Env[Any, Any], _info: dict[str, Any]) -> np.ndarray:
    """Straight there."""
    bare: Any = env.unwrapped
    action: np.ndarray = (bare.dots[bare.target] - bare.hand) / STEP
    return action


SPECS = tuple(
    TaskSpec(
        name=name,
        env_id=f"foreign/{kind}-v0",
        success="hand within 3 pixels of the dot that is named at the end",
        example="go to the red dot",
        horizon=HORIZON,
        control_hz=RATE,
        cameras=("top", "side"),
        action_names=("right", "down"),
        agent_pos_names=("x", "y"),
        kwargs={"labelled": kind == "LabelledDots"},
        expert="" if name == "dots/alone" else f"{__name__}:expert",
        suites=("dots",) if name == "dots/alone" else ("dots", "dots/taught"),
        difficulty="easy",
    )
    for name, kind in (("dots/plain", "Dots"), ("dots/labelled", "LabelledDots"), ("dots/alone", "LoneDots"))
)

for spec in SPECS:
    if spec.env_id not in gymnasium.registry:
        gymnasium.register(spec.env_id, entry_point=DotsEnv, max_episode_steps=HORIZON)
    register_task(spec)
