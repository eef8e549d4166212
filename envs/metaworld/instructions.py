"""What Meta-World's tasks are called in words: our own, because it has none.

Three ways to ask for it and four names for the thing make twelve texts of each task. Four of them are held out, each of
other parts that training texts have: every word is known from training, and no held-out text is. Directions are those
of the robot, which looks along y with x to its right; turns are as seen from above.
"""

from __future__ import annotations

from envs.phrasebook import Phrasebook

_PUCK = ("puck", "round puck", "cylinder", "small cylinder")
_BLOCK = ("block", "cube", "small block", "wooden block")
_BUTTON = ("button", "red button", "round button", "big button")
_DOOR = ("door", "safe", "door of the safe", "grey door")
_DRAWER = ("drawer", "green drawer", "cabinet drawer", "drawer of the cabinet")
_FAUCET = ("faucet", "tap", "water tap", "kitchen faucet")
_HANDLE = ("handle", "red handle", "bar", "red bar")
_MUG = ("mug", "white mug", "cup", "coffee cup")
_NUT = ("nut", "round nut", "ring", "nut with the green handle")
_PLATE = ("plate", "black plate", "disc", "black disc")
_POINT = ("goal", "goal marker", "target", "marked point")
_STICK = ("stick", "blue stick", "rod", "short stick")
_WINDOW = ("window", "sliding window", "window pane", "glass pane")

_PARTS: dict[str, tuple[tuple[str, str, str], tuple[str, str, str, str]]] = {
    "assembly": (("put the {} on the peg", "pick up the {} and hang it on the peg", "place the {} over the peg"), _NUT),
    "basketball": (
        ("put the {} into the basket", "pick up the {} and bring it to the hoop", "throw the {} into the hoop"),
        ("ball", "basketball", "orange ball", "small ball"),
    ),
    "bin-picking": (
        ("move the {} to the blue bin", "pick up the {} and drop it in the blue bin", "put the {} into the other bin"),
        ("block", "cube", "small block", "green cube"),
    ),
    "box-close": (
        ("put the {} on the box", "close the box with the {}", "pick up the {} and set it on the box"),
        ("lid", "cover", "wooden lid", "box lid"),
    ),
    "button-press": (
        ("press the {} from the front", "push the {} in", "move forward and press the {}"),
        _BUTTON,
    ),
    "button-press-topdown": (("press the {} from above", "push the {} down", "press down on the {}"), _BUTTON),
    "button-press-topdown-wall": (
        (
            "press the {} behind the wall from above",
            "push down the {} behind the wall",
            "go over the wall and push the {} down",
        ),
        _BUTTON,
    ),
    "button-press-wall": (
        ("press the {} behind the wall", "go around the wall and press the {}", "push the {} past the wall"),
        _BUTTON,
    ),
    "coffee-button": (
        ("press the coffee machine's {}", "push the {} on the coffee machine", "make coffee with the {}"),
        ("button", "round button", "start button", "grey button"),
    ),
    "coffee-pull": (
        ("pull the {} away from the coffee machine", "drag the {} out of the machine", "take the {} from the machine"),
        _MUG,
    ),
    "coffee-push": (
        ("push the {} under the coffee machine", "move the {} to the coffee machine", "slide the {} into the machine"),
        _MUG,
    ),
    "dial-turn": (
        ("turn the {}", "rotate the {}", "twist the {} around"),
        ("dial", "knob", "black dial", "round knob"),
    ),
    "disassemble": (("take the {} off the peg", "lift the {} off the peg", "remove the {} from the peg"), _NUT),
    "door-close": (("close the {}", "push the {} shut", "swing the {} closed"), _DOOR),
    "door-lock": (("lock the {}", "turn the latch to lock the {}", "turn the latch down and lock the {}"), _DOOR),
    "door-open": (("open the {}", "pull the {} open", "swing the {} open"), _DOOR),
    "door-unlock": (
        ("unlock the {}", "turn the latch to unlock the {}", "turn the latch sideways and unlock the {}"),
        _DOOR,
    ),
    "drawer-close": (("close the {}", "push the {} shut", "slide the {} in"), _DRAWER),
    "drawer-open": (("open the {}", "pull the {} open", "slide the {} out"), _DRAWER),
    "faucet-close": (("close the {}", "turn off the {}", "turn the {} clockwise"), _FAUCET),
    "faucet-open": (("open the {}", "turn on the {}", "turn the {} counterclockwise"), _FAUCET),
    "hammer": (
        ("hit the nail with the {}", "pick up the {} and hit the nail", "drive the nail in with the {}"),
        ("hammer", "red hammer", "heavy hammer", "hammer with the red handle"),
    ),
    "hand-insert": (
        ("insert the {} into the hole", "carry the {} into the hole", "lower the {} into the hole with the gripper"),
        _BLOCK,
    ),
    "handle-press": (("press the {} down", "push down the {}", "press down on the {}"), _HANDLE),
    "handle-press-side": (
        ("press the {} down from the side", "push down the {} at the side", "press down on the sideways {}"),
        _HANDLE,
    ),
    "handle-pull": (("pull the {} up", "lift the {}", "pull up on the {}"), _HANDLE),
    "handle-pull-side": (
        ("pull the {} up from the side", "lift the {} at the side", "pull up on the sideways {}"),
        _HANDLE,
    ),
    "lever-pull": (
        ("pull the {} up", "raise the {}", "turn the {} upright"),
        ("lever", "blue lever", "long lever", "lever with the blue ball"),
    ),
    "peg-insert-side": (
        ("insert the {} into the box", "put the {} into the hole of the box", "push the {} sideways into the red hole"),
        ("peg", "green peg", "green rod", "long peg"),
    ),
    "peg-unplug-side": (
        ("unplug the {}", "pull the {} out of the wall", "pull the {} out sideways"),
        ("plug", "black plug", "peg", "black peg"),
    ),
    "pick-out-of-hole": (
        ("pick the {} out of the hole", "lift the {} out of the hole", "take the {} out of the hole to the goal"),
        ("puck", "red puck", "block", "red block"),
    ),
    "pick-place": (
        ("pick up the {} and bring it to the goal", "pick the {} and place it at the goal", "lift the {} to the goal"),
        _PUCK,
    ),
    "pick-place-wall": (
        (
            "pick up the {} and bring it over the wall",
            "lift the {} over the wall to the goal",
            "carry the {} over the wall",
        ),
        _PUCK,
    ),
    "plate-slide": (
        ("slide the {} forward into the net", "push the {} away into the net", "shove the {} straight into the net"),
        _PLATE,
    ),
    "plate-slide-back": (
        ("pull the {} back out of the net", "slide the {} back to the robot", "drag the {} straight out of the net"),
        _PLATE,
    ),
    "plate-slide-back-side": (
        ("slide the {} to the right out of the net", "push the {} sideways out of the net", "move the {} back right"),
        _PLATE,
    ),
    "plate-slide-side": (
        ("slide the {} to the left into the net", "push the {} sideways into the net", "shove the {} left"),
        _PLATE,
    ),
    "push": (
        ("push the {} to the goal", "slide the {} along the table to the goal", "push the {} forward"),
        _PUCK,
    ),
    "push-back": (
        ("push the {} back to the goal", "drag the {} towards the robot", "pull the {} back along the table"),
        _BLOCK,
    ),
    "push-wall": (
        ("push the {} around the wall", "slide the {} past the wall to the goal", "push the {} behind the wall"),
        _PUCK,
    ),
    "reach": (("reach the {}", "move the gripper to the {}", "bring the hand to the {}"), _POINT),
    "reach-wall": (
        ("reach over the wall to the {}", "move the gripper past the wall to the {}", "reach the {} behind the wall"),
        _POINT,
    ),
    "shelf-place": (
        ("put the {} on the shelf", "pick up the {} and place it on the shelf", "lift the {} onto the shelf"),
        ("block", "blue block", "cube", "blue cube"),
    ),
    "soccer": (
        ("kick the {} into the goal", "push the {} into the goal", "score with the {}"),
        ("ball", "soccer ball", "football", "small ball"),
    ),
    "stick-pull": (
        ("pull the thermos with the {}", "hook the thermos with the {} and pull it", "drag the thermos with the {}"),
        _STICK,
    ),
    "stick-push": (
        ("push the thermos with the {}", "pick up the {} and push the thermos", "shove the thermos away with the {}"),
        _STICK,
    ),
    "sweep": (
        ("sweep the {} off the table", "sweep the {} to the right edge of the table", "push the {} off to the right"),
        _BLOCK,
    ),
    "sweep-into": (
        ("sweep the {} into the hole", "push the {} along the table into the hole", "shove the {} into the hole"),
        _BLOCK,
    ),
    "window-close": (("close the {}", "slide the {} shut", "push the {} shut to the left"), _WINDOW),
    "window-open": (("open the {}", "slide the {} open", "push the {} open to the right"), _WINDOW),
}

_BOOK = Phrasebook(_PARTS)
texts, say, name_of = _BOOK.texts, _BOOK.say, _BOOK.name_of
