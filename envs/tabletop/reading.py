"""A user's own words: which task they ask for, and what they single out in it."""

from __future__ import annotations

from envs.tabletop.events import read_event, read_kind
from envs.tabletop.instructions import Referent, read_object


def read_instruction(task: str, text: str) -> Referent:
    """What a user's words mean in this task.

    Raises:
        ValueError: they name nothing the task knows.
    """
    from envs.tabletop.tasks.track_motion import read_motion

    if task == "track_event":
        return read_event(text)
    return read_motion(text) if task == "track_motion" else read_object(text)


def guess_task(text: str, tasks: tuple[str, ...]) -> str:
    """The task that fits a user's words best, out of those the policy knows.

    Words that say when to act mean `track_event`, words of motion `track_motion`; otherwise verbs of staying mean
    `track` and the rest `reach`.

    Raises:
        ValueError: they name no object, and would be those of a task that the policy does not know.
    """
    kind, moving = read_kind(text), _reads_motion(text)
    if "track_event" in tasks and kind is not None:
        return "track_event"
    if "track_motion" in tasks and moving:
        return "track_motion"
    try:
        read_object(text)
    except ValueError:
        if kind is not None or moving:
            other = "track_motion" if kind is None else "track_event"
            raise ValueError(
                f"instruction {text!r} is one for {other}, and the policy was trained on {', '.join(tasks)}; "
                f"take a policy that was trained on {other}"
            ) from None
    staying = ("track", "follow", "stay", "keep", "chase", "hover", "after", "with")
    preferred = "track" if any(word in text.lower() for word in staying) else "reach"
    others = (task for task in tasks if task not in ("track_motion", "track_event"))
    return preferred if preferred in tasks else next(others, tasks[0])


def _reads_motion(text: str) -> bool:
    from envs.tabletop.tasks.track_motion import read_motion

    try:
        read_motion(text)
    except ValueError:
        return False
    return True
