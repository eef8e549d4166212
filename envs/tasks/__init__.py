"""The tasks, by name. Importing this package imports MuJoCo; `envs.registration` does not."""

from __future__ import annotations

from envs.tabletop import TabletopEnv
from envs.tasks.reach import ReachEnv
from envs.tasks.track import TrackEnv
from envs.tasks.track_event import TrackEventEnv
from envs.tasks.track_motion import TrackMotionEnv
from envs.tasks.track_occlusion import TrackOcclusionEnv

TASKS: dict[str, type[TabletopEnv]] = {
    ReachEnv.task: ReachEnv,
    TrackEnv.task: TrackEnv,
    TrackMotionEnv.task: TrackMotionEnv,
    TrackOcclusionEnv.task: TrackOcclusionEnv,
    TrackEventEnv.task: TrackEventEnv,
}
