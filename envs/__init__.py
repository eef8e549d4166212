"""Tasks, and the loop that runs them: the contract and the registry, rollouts, our own table-top scene, other people's.

Importing this package registers our tasks, Meta-World's and Fetch's, and loads no simulator:
`gymnasium.make("envs:vla/Track-v0")`.
"""

from __future__ import annotations

from envs.contact.specs import register as register_contact
from envs.metaworld.specs import register as register_metaworld
from envs.robotics.specs import register as register_robotics
from envs.tabletop.specs import register as register_tabletop

register_tabletop()
register_contact()
register_metaworld()
register_robotics()
