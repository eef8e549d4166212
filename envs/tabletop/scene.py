"""The MuJoCo model: a table, a six-joint arm with a parallel gripper, two cameras, slots for objects, two props.

Everything is authored here from primitives. Objects are mocap bodies driven along smooth paths; each slot holds the
geoms of every shape, and an episode shows those it needs. Screen and lamp are there and hidden unless a task shows
them. Shadows and multisampling are off: with software rendering they are most of the cost of a frame.
"""

from __future__ import annotations

import mujoco
import numpy as np

from envs.rendering import Renderer
from envs.segments import Thing
from envs.tabletop.objects import HALF_HEIGHT, RADIUS, SIZES, SLOTS, TableObject

CONTROL_HZ = 20
TIMESTEP = 0.005
SUBSTEPS = round(1 / (CONTROL_HZ * TIMESTEP))
CAMERAS = ("front", "wrist")

ARM_BASE_X = -0.42
ARM_JOINTS = tuple(f"arm{i}" for i in range(1, 7))
FINGER_JOINTS = ("finger_left", "finger_right")
FINGER_RANGE = 0.035  # metres each finger opens
HIDDEN_GROUP = 5  # geom group that is never drawn
BACKDROP_GROUP = 1  # geom group of what no camera ever sees in front of an object

CAMERA_DISTANCE = 1.6
CAMERA_ELEVATION = np.deg2rad(55.0)
CAMERA_TARGET = (0.0, 0.0, 0.06)
CAMERA_FOVY = 19.0
PARKED = (0.0, 0.0, -5.0)  # where unused slots wait

SCREEN_X = (-0.24, 0.33)  # metres; further towards the camera than any object, because the camera looks under it
SCREEN_HEIGHT = 0.10  # of its underside: above every object and below a gripper that hovers, metres
SCREEN_HALF_WIDTH = 0.09  # along y, metres
LAMP_PLACE = (0.235, 0.205)  # x, y in metres: a corner of the table that the arm is never in front of
LAMP_RADIUS = 0.038  # of the circle that holds it seen from above, metres
LAMP_COLOURS = {"red": (1.0, 0.05, 0.05), "green": (0.05, 1.0, 0.15)}

_PI = np.pi


def front_camera() -> str:
    """The MJCF of the camera that looks at the table from its other side."""
    x = CAMERA_TARGET[0] + CAMERA_DISTANCE * np.cos(CAMERA_ELEVATION)
    z = CAMERA_TARGET[2] + CAMERA_DISTANCE * np.sin(CAMERA_ELEVATION)
    up_x, up_z = -np.sin(CAMERA_ELEVATION), np.cos(CAMERA_ELEVATION)
    return f'<camera name="front" pos="{x:.4f} 0 {z:.4f}" xyaxes="0 1 0 {up_x:.4f} 0 {up_z:.4f}" fovy="{CAMERA_FOVY}"/>'


def _wedge_mesh(size: str) -> str:
    radius = RADIUS[size] * 1.22
    half = RADIUS[size] * HALF_HEIGHT["wedge"]
    angles = np.deg2rad([0.0, 120.0, 240.0])
    corners = [(radius * np.cos(a), radius * np.sin(a), z) for z in (-half, half) for a in angles]
    vertices = "  ".join(" ".join(f"{v:.4f}" for v in corner) for corner in corners)
    return f'<mesh name="wedge_{size}" vertex="{vertices}"/>'


def _slot(index: int) -> str:
    return f"""
    <body name="object{index}" mocap="true" pos="{PARKED[0]} {PARKED[1]} {PARKED[2] - index}">
      <geom name="object{index}/ball" type="sphere" size="0.04" class="object"/>
      <geom name="object{index}/cube" type="box" size="0.04 0.04 0.04" class="object"/>
      <geom name="object{index}/cross_a" type="box" size="0.04 0.01 0.03" class="object"/>
      <geom name="object{index}/cross_b" type="box" size="0.01 0.04 0.03" class="object"/>
      <geom name="object{index}/wedge_small" type="mesh" mesh="wedge_small" class="object"/>
      <geom name="object{index}/wedge_large" type="mesh" mesh="wedge_large" class="object"/>
    </body>"""


def _props() -> str:
    """The screen and the lamp, hidden; `envs.tabletop.props` shows them."""
    middle, half = (SCREEN_X[0] + SCREEN_X[1]) / 2, (SCREEN_X[1] - SCREEN_X[0]) / 2
    thin = 0.003
    red = " ".join(map(str, LAMP_COLOURS["red"]))
    return f"""
    <geom name="screen" type="box" size="{half} {SCREEN_HALF_WIDTH} {thin}" pos="{middle} 0 {SCREEN_HEIGHT + thin}"
      rgba="0.30 0.38 0.44 1" class="prop"/>
    <geom name="lamp/base" type="box" size="0.026 0.026 0.006" pos="{LAMP_PLACE[0]} {LAMP_PLACE[1]} 0.006"
      rgba="0.08 0.08 0.09 1" class="prop"/>
    <geom name="lamp/head" type="cylinder" size="0.021 0.012" pos="{LAMP_PLACE[0]} {LAMP_PLACE[1]} 0.024"
      rgba="{red} 1" class="prop"/>"""


def arm_defaults() -> str:
    """MJCF defaults of the arm and its fingers."""
    return f"""<default class="arm">
      <joint damping="2" armature="0.02" actuatorgravcomp="true"/>
      <geom rgba="0.88 0.88 0.90 1" contype="0" conaffinity="0"/>
    </default>
    <default class="finger">
      <joint type="slide" range="0 {FINGER_RANGE}" damping="5" armature="0.01" actuatorgravcomp="true"/>
      <geom rgba="0.15 0.15 0.17 1" contype="1" conaffinity="2" friction="1.2 0.01 0.001"/>
    </default>"""


def arm_body(wrist_axes: str = "0 -1 0 1 0 0.25") -> str:
    """The MJCF bodies of the arm, on its pedestal.

    Args:
        wrist_axes: where the camera at the wrist looks, the `xyaxes` of its MJCF: down and a little ahead.
    """
    return f"""<body name="base" pos="{ARM_BASE_X} 0 0" childclass="arm">
      <geom name="pedestal" type="cylinder" size="0.06 0.13" pos="0 0 0.13" rgba="0.25 0.26 0.28 1"
        group="{BACKDROP_GROUP}"/>
      <body name="shoulder" pos="0 0 0.30" gravcomp="1">
        <joint name="arm1" axis="0 0 1" range="-2.6 2.6"/>
        <geom type="cylinder" size="0.05 0.04" mass="2" group="{BACKDROP_GROUP}"/>
        <body name="upper_arm" gravcomp="1">
          <joint name="arm2" axis="0 1 0" range="-1.2 1.9"/>
          <geom type="capsule" fromto="0 0 0 0 0 0.36" size="0.03" mass="2" group="{BACKDROP_GROUP}"/>
          <body name="forearm" pos="0 0 0.36" gravcomp="1">
            <joint name="arm3" axis="0 1 0" range="-1.5 2.4"/>
            <geom type="capsule" fromto="0 0 0 0.22 0 0" size="0.026" mass="1.2"/>
            <body name="forearm_roll" pos="0.22 0 0" gravcomp="1">
              <joint name="arm4" axis="1 0 0" range="-2.8 2.8"/>
              <geom type="capsule" fromto="0 0 0 0.14 0 0" size="0.022" mass="0.8"/>
              <body name="wrist_pitch" pos="0.14 0 0" gravcomp="1">
                <joint name="arm5" axis="0 1 0" range="-2.4 2.4"/>
                <geom type="capsule" fromto="0 0 0 0 0 -0.07" size="0.02" mass="0.4"/>
                <body name="hand" pos="0 0 -0.08" gravcomp="1">
                  <joint name="arm6" axis="0 0 -1" range="-3 3" damping="0.6"/>
                  <camera name="wrist" pos="0.07 0 0.02" xyaxes="{wrist_axes}" fovy="75"/>
                  <geom type="box" size="0.018 0.05 0.014" pos="0 0 -0.015" mass="0.3" rgba="0.15 0.15 0.17 1"/>
                  <site name="pinch" pos="0 0 -0.10" size="0.004" group="{HIDDEN_GROUP}"/>
                  <body name="left_finger" pos="0 0.008 -0.03" childclass="finger" gravcomp="1">
                    <joint name="finger_left" axis="0 1 0"/>
                    <geom type="box" size="0.009 0.006 0.036" pos="0 0 -0.036" mass="0.05"/>
                  </body>
                  <body name="right_finger" pos="0 -0.008 -0.03" childclass="finger" gravcomp="1">
                    <joint name="finger_right" axis="0 -1 0"/>
                    <geom type="box" size="0.009 0.006 0.036" pos="0 0 -0.036" mass="0.05"/>
                  </body>
                </body>
              </body>
            </body>
          </body>
        </body>
      </body>
    </body>"""


def arm_actuators() -> str:
    """The MJCF actuators of the arm: position servos with limited forces."""
    return """<actuator>
    <position name="arm1" joint="arm1" kp="900" dampratio="1" forcerange="-150 150" inheritrange="1"/>
    <position name="arm2" joint="arm2" kp="900" dampratio="1" forcerange="-150 150" inheritrange="1"/>
    <position name="arm3" joint="arm3" kp="700" dampratio="1" forcerange="-100 100" inheritrange="1"/>
    <position name="arm4" joint="arm4" kp="200" dampratio="1" forcerange="-40 40" inheritrange="1"/>
    <position name="arm5" joint="arm5" kp="200" dampratio="1" forcerange="-40 40" inheritrange="1"/>
    <position name="arm6" joint="arm6" kp="80" dampratio="1" forcerange="-20 20" inheritrange="1"/>
    <position name="finger_left" joint="finger_left" kp="200" dampratio="1" forcerange="-20 20" inheritrange="1"/>
    <position name="finger_right" joint="finger_right" kp="200" dampratio="1" forcerange="-20 20" inheritrange="1"/>
  </actuator>"""


def visuals(near: float = 0.02) -> str:
    """The MJCF of how pictures are drawn: no multisampling, a headlight.

    Args:
        near: what is nearer to a camera than this share of the scene's extent is not drawn.
    """
    return f"""<visual>
    <global offwidth="640" offheight="640"/>
    <quality shadowsize="1024" offsamples="0" numslices="16" numstacks="10"/>
    <headlight ambient="0.35 0.35 0.35" diffuse="0.35 0.35 0.35" specular="0 0 0"/>
    <map znear="{near}" zfar="8"/>
  </visual>"""


def room() -> str:
    """The MJCF of what stands still in every scene: light, camera, floor and table."""
    return f"""<light name="sun" type="directional" pos="0.5 0.4 2" dir="-0.3 -0.25 -1" diffuse="0.55 0.55 0.55"
      specular="0.1 0.1 0.1" castshadow="false"/>
    {front_camera()}
    <geom name="floor" type="plane" pos="0 0 -0.5" size="3 3 0.1" rgba="0.30 0.32 0.35 1" contype="0" conaffinity="0"
      group="{BACKDROP_GROUP}"/>
    <geom name="table" type="box" pos="-0.05 0 -0.02" size="0.45 0.40 0.02" rgba="0.55 0.53 0.50 1"
      contype="2" conaffinity="1" group="{BACKDROP_GROUP}"/>"""


def scene_xml() -> str:
    """The MJCF text of the whole scene."""
    return f"""
<mujoco model="vla tabletop">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{TIMESTEP}" integrator="implicitfast" jacobian="dense" cone="pyramidal" iterations="20"/>
  {visuals()}
  <default>
    {arm_defaults()}
    <default class="object">
      <geom group="{HIDDEN_GROUP}" contype="0" conaffinity="0" friction="1 0.01 0.001"/>
    </default>
    <default class="prop">
      <geom group="{HIDDEN_GROUP}" contype="0" conaffinity="0"/>
    </default>
  </default>
  <asset>
    {"".join(_wedge_mesh(size) for size in SIZES)}
  </asset>
  <worldbody>
    {room()}
    {arm_body()}
    {"".join(_slot(i) for i in range(SLOTS))}
    {_props()}
  </worldbody>
  {arm_actuators()}
</mujoco>"""


def load_scene() -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(scene_xml())


def scene_renderer(model: mujoco.MjModel, size: int) -> Renderer:
    """Pictures of the scene, and the boxes of its slots' objects."""
    things = [Thing(bodies=(f"object{slot}",)) for slot in range(SLOTS)]
    return Renderer(model, size, things=things, backdrop_groups=(BACKDROP_GROUP,))


def show_objects(model: mujoco.MjModel, objects: list[TableObject]) -> None:
    """Write the looks of `objects` into the slots' geoms (in place) and hide every other geom of the slots."""
    for slot in range(SLOTS):
        shown = objects[slot] if slot < len(objects) else None
        for geom in slot_geoms(model, slot):
            name = mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_GEOM, geom).split("/")[1]
            used = shown is not None and name in _geoms_of(shown)
            model.geom_group[geom] = 0 if used else HIDDEN_GROUP
            model.geom_contype[geom] = 2 if used else 0
            model.geom_conaffinity[geom] = 1 if used else 0
            if shown is None or not used:
                continue
            model.geom_rgba[geom] = (*shown.rgb, 1.0)
            if not name.startswith("wedge"):
                half = _geoms_of(shown)[name]
                model.geom_size[geom] = half
                extent = half if half[1] > 0 else (half[0],) * 3
                model.geom_rbound[geom] = np.linalg.norm(extent) if half[1] > 0 else half[0]
                model.geom_aabb[geom] = (0, 0, 0, *extent)


def slot_geoms(model: mujoco.MjModel, slot: int) -> range:
    body = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, f"object{slot}")
    start = int(model.body_geomadr[body])
    return range(start, start + int(model.body_geomnum[body]))


def _geoms_of(shown: TableObject) -> dict[str, tuple[float, float, float]]:
    """The slot's geoms that draw this object, with their half sizes."""
    r, h = RADIUS[shown.size], shown.half_height
    if shown.shape == "ball":
        return {"ball": (r, 0.0, 0.0)}
    if shown.shape == "cube":
        return {"cube": (h, h, h)}
    if shown.shape == "cross":
        return {"cross_a": (r * 1.1, r * 0.36, h), "cross_b": (r * 0.36, r * 1.1, h)}
    return {f"wedge_{shown.size}": (0.0, 0.0, 0.0)}
