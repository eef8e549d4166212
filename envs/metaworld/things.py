"""What the labels of Meta-World's tasks are about: the thing that the words name, and where it is to go.

Found by looking at each task's model and at pictures of it. A goal is the marker that Meta-World draws, where it draws
one in the right place, and else what stands there.
"""

from __future__ import annotations

from envs.segments import Thing

_GOAL = Thing(sites=("goal",))
UNSEEN = Thing(sites=("hand-goal-site",))  # transparent: Meta-World leaves the marker of `sweep` in the robot's middle
_PUCK = Thing(bodies=("obj",), subtree=True)
_BUTTON = (Thing(bodies=("button",)), Thing(bodies=("buttonbox",)))
_DIAL = Thing(bodies=("dial",), subtree=True)
_LOCK = (Thing(bodies=("lock_link",)), Thing(bodies=("door_link",)))
_FAUCET = (Thing(bodies=("faucet_link2",)), Thing(bodies=("faucet_link",)))
_PRESS = (Thing(bodies=("handle_link",)), Thing(bodies=("hdlprs",)))
_PLATE = Thing(bodies=("puck_channel",), subtree=True)
_NET = Thing(bodies=("puck_goal",), subtree=True)
_NUT = (Thing(bodies=("asmbly_peg",)), Thing(bodies=("peg",)))
_STICK = (Thing(bodies=("stick",), subtree=True), Thing(bodies=("object",), subtree=True))
_WINDOW = (Thing(geoms=(43, 44, 45, 46, 47)), Thing(bodies=("window",), subtree=True))  # the white handle has no name

# Of each task: the thing that is meant (of those with a tool, the tool), and its goal.
THINGS: dict[str, tuple[Thing, Thing]] = {
    "assembly": _NUT,
    "basketball": (Thing(bodies=("basketball",)), Thing(bodies=("hooplink",))),
    "bin-picking": (Thing(bodies=("objA",)), Thing(bodies=("binB",))),
    "box-close": (Thing(bodies=("top_link",)), Thing(bodies=("box",))),
    "button-press": _BUTTON,
    "button-press-topdown": _BUTTON,
    "button-press-topdown-wall": _BUTTON,
    "button-press-wall": _BUTTON,
    "coffee-button": (Thing(bodies=("cmbutton",)), Thing(bodies=("cm_link",))),
    "coffee-pull": (Thing(bodies=("mug",)), Thing(sites=("mug_goal",))),
    "coffee-push": (Thing(bodies=("mug",)), Thing(bodies=("cm_link",))),
    "dial-turn": (_DIAL, _DIAL),
    "disassemble": _NUT,
    "door-close": (Thing(geoms=("handle",)), _GOAL),
    "door-lock": _LOCK,
    "door-open": (Thing(geoms=("handle",)), _GOAL),
    "door-unlock": _LOCK,
    "drawer-close": (Thing(geoms=("objGeom",)), _GOAL),
    "drawer-open": (Thing(geoms=("objGeom",)), _GOAL),
    "faucet-close": _FAUCET,
    "faucet-open": _FAUCET,
    "hammer": (Thing(bodies=("hammer",)), Thing(bodies=("nail_link",))),
    "hand-insert": (_PUCK, _GOAL),
    "handle-press": _PRESS,
    "handle-press-side": _PRESS,
    "handle-pull": _PRESS,
    "handle-pull-side": _PRESS,
    "lever-pull": (Thing(bodies=("lever_link1",)), _GOAL),
    "peg-insert-side": (Thing(bodies=("peg",)), Thing(bodies=("box",), subtree=True)),
    "peg-unplug-side": (Thing(bodies=("plug",)), _GOAL),
    "pick-out-of-hole": (_PUCK, _GOAL),
    "pick-place": (_PUCK, _GOAL),
    "pick-place-wall": (_PUCK, _GOAL),
    "plate-slide": (_PLATE, _NET),
    "plate-slide-back": (_PLATE, _GOAL),
    "plate-slide-back-side": (_PLATE, _GOAL),
    "plate-slide-side": (_PLATE, _NET),
    "push": (_PUCK, _GOAL),
    "push-back": (_PUCK, _GOAL),
    "push-wall": (_PUCK, _GOAL),
    "reach": (_GOAL, _GOAL),
    "reach-wall": (_GOAL, _GOAL),
    "shelf-place": (_PUCK, _GOAL),
    "soccer": (Thing(bodies=("soccer_ball",), subtree=True), Thing(bodies=("goal_whole",), subtree=True)),
    "stick-pull": _STICK,
    "stick-push": _STICK,
    "sweep": (_PUCK, UNSEEN),
    "sweep-into": (_PUCK, _GOAL),
    "window-close": _WINDOW,
    "window-open": _WINDOW,
}
