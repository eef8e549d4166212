"""Configuration of the live page."""

from __future__ import annotations

from dataclasses import dataclass

from configs.checks import check_host, check_kinds, check_least, check_most


@dataclass(frozen=True, kw_only=True)
class PlayConfig:
    """How the page is served, and how it shows a world.

    Args:
        host: address to listen at; others than this machine can come in only if it is not a loopback address.
        port: TCP port; 0 takes one that is free.
        worlds: tabs that can play at a time; each has a world of its own.
        picture: side of the robot's picture on the page in pixels.
        picture_hz: pictures a second at most.
        scene_hz: updates of the scene in 3D a second at most.
        hold_s: seconds for which the end of an episode is shown before the next scene.
        seconds: after which the page ends by itself; 0 for until it is interrupted.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    worlds: int = 4
    picture: int = 352
    picture_hz: float = 8.0
    scene_hz: float = 25.0
    hold_s: float = 2.0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        check_kinds("", self)
        check_least("", self, port=0, worlds=1, picture=64)
        check_most("", self, port=65535, worlds=1000, picture=2048)
        check_host(self.host)
        if self.picture % 2:
            raise ValueError(f"picture {self.picture} must be an even number of pixels")
        for name in ("picture_hz", "scene_hz"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} {getattr(self, name)} must be above 0")
        for name in ("hold_s", "seconds"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} must be 0 or more seconds")
