"""Pictures of one tabletop scene in every size that is asked for."""

from __future__ import annotations

from typing import Any

import mujoco

from envs.rendering import Renderer
from envs.tabletop.scene import scene_renderer

RENDER_SIZE = 256


class Pictures:
    """The renderers of a scene, each made when it is first needed. Copies, pickled ones too, make their own."""

    def __init__(self, model: mujoco.MjModel, size: int) -> None:
        self._model, self._size = model, size
        self._observed: Renderer | None = None
        self._rendered: Renderer | None = None
        self._large: Renderer | None = None

    def observed(self) -> Renderer:
        """Of what the policy sees, with boxes."""
        if self._observed is None:
            self._observed = scene_renderer(self._model, self._size)
        return self._observed

    def rendered(self) -> Renderer:
        """Of what `render()` gives."""
        if self._rendered is None:
            self._rendered = Renderer(self._model, RENDER_SIZE)
        return self._rendered

    def large(self, size: int) -> Renderer:
        """Of this size, for people; the one of another size is closed."""
        if self._large is None or self._large.size != size:
            if self._large is not None:
                self._large.close()
            self._large = Renderer(self._model, size)
        return self._large

    def forget_episode(self) -> None:
        """Call when objects were shown or hidden."""
        for renderer in (self._observed, self._rendered, self._large):
            if renderer is not None:
                renderer.forget_episode()

    def close(self) -> None:
        for renderer in (self._observed, self._rendered, self._large):
            if renderer is not None:
                renderer.close()
        self._observed = self._rendered = self._large = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: None if isinstance(held, Renderer) else held for name, held in self.__dict__.items()}
