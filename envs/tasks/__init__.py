"""The tasks, by name. Importing this package imports MuJoCo; `envs.registration` does not."""

from __future__ import annotations

from envs.tabletop import TabletopEnv
from envs.tasks.reach import ReachEnv
from envs.tasks.track import TrackEnv
from envs.tasks.track_motion import TrackMotionEnv

TASKS: dict[str, type[TabletopEnv]] = {
    ReachEnv.task: ReachEnv,
    TrackEnv.task: TrackEnv,
    TrackMotionEnv.task: TrackMotionEnv,
}
