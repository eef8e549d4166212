"""An OpenGL context that any thread may draw with, one at a time.

OpenGL ties a context to the thread in which it is current, until that thread lets go of it. MuJoCo's classes never let
go, so that whoever drew first in one thread could not draw, nor even close, in another. Here a context is current only
inside a `with` block; taking and leaving it costs some microseconds a picture.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any

import mujoco

from envs.gl import GLContextError, choose_gl_backend

_CREATING = threading.Lock()  # EGL's display is opened by whoever comes first


class _Taken(threading.local):
    """The contexts that this thread is inside of, the innermost last."""

    def __init__(self) -> None:
        self.stack: list[GLContext] = []


_TAKEN = _Taken()


class GLContext:
    """Draws off screen, up to `size` pixels a side. `with context:` makes it current in the calling thread.

    Blocks may lie inside one another: the garbage collector may close one renderer while another one draws. Two threads
    take turns.
    """

    def __init__(self, size: int) -> None:
        self._lock = threading.RLock()
        self._context: Any = None
        choose_gl_backend()
        with _CREATING:
            self._context = mujoco.GLContext(size, size)
        self._let_go = _letting_go(self._context)
        _restore()  # making a context may have let go of the current one

    def __enter__(self) -> None:
        self._lock.acquire()
        try:
            _make_current(self._context)
        except BaseException:
            self._lock.release()
            raise
        _TAKEN.stack.append(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _TAKEN.stack.pop()
        try:
            if _TAKEN.stack:
                _restore()
            else:
                self._let_go()
        finally:
            self._lock.release()

    def free(self) -> None:
        """Give the context back, outside of its own blocks. A second time does nothing."""
        with self._lock:
            if self._context is not None:
                self._context.free()
                self._context = None
            _restore()


def _restore() -> None:
    if _TAKEN.stack:
        _make_current(_TAKEN.stack[-1]._context)


def _make_current(context: Any) -> None:
    if context is None:
        raise GLContextError("this renderer was closed; make another one to go on drawing")
    try:
        context.make_current()
    except _errors() as error:
        raise GLContextError(
            f"the OpenGL context cannot be used in thread {threading.current_thread().name!r} "
            f"({' '.join(str(error).split())}); another thread may have made it current outside of our own calls: "
            "let go of it there, or close the environment and reset it here"
        ) from error


def _letting_go(context: Any) -> Callable[[], None]:
    """What makes no context current in the calling thread."""
    backend = type(context).__module__
    if backend == "mujoco.osmesa":
        from mujoco import osmesa

        return partial(osmesa.osmesa.OSMesaMakeCurrent, None, None, osmesa.GL.GL_FLOAT, 0, 0)
    if backend == "mujoco.glfw":
        from mujoco import glfw

        return partial(glfw.glfw.make_context_current, None)
    from mujoco import egl

    no_surface, no_context = egl.EGL.EGL_NO_SURFACE, egl.EGL.EGL_NO_CONTEXT
    return partial(egl.EGL.eglMakeCurrent, egl.EGL_DISPLAY, no_surface, no_surface, no_context)


def _errors() -> tuple[type[Exception], ...]:
    from OpenGL import error

    return (error.Error, RuntimeError)
