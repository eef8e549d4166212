"""The tasks, by name. Importing this package imports MuJoCo; `envs.task` does not."""

from __future__ import annotations

from envs.tabletop.env import TabletopEnv
from envs.tabletop.tasks.reach import ReachEnv
from envs.tabletop.tasks.track import TrackEnv
from envs.tabletop.tasks.track_event import TrackEventEnv
from envs.tabletop.tasks.track_motion import TrackMotionEnv
from envs.tabletop.tasks.track_occlusion import TrackOcclusionEnv

TASKS: dict[str, type[TabletopEnv]] = {
    ReachEnv.task: ReachEnv,
    TrackEnv.task: TrackEnv,
    TrackMotionEnv.task: TrackMotionEnv,
    TrackOcclusionEnv.task: TrackOcclusionEnv,
    TrackEventEnv.task: TrackEventEnv,
}
