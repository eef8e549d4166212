"""Chooses how MuJoCo draws without a display; this file imports neither MuJoCo nor OpenGL.

MuJoCo reads MUJOCO_GL once, when it is first imported, and without it asks for a window. `choose_gl_backend` settles
the variable first: EGL (on a GPU or in software), else OSMesa (software).

Whether EGL works is tried in a short child process, which is this file run as a script (`gl.py egl`). Initialising
EGL here would start Mesa's threads, which a later fork does not copy, and a driver that aborts would take the caller
along. The choice stays in the environment, so that workers inherit it and try nothing again.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import subprocess
import sys
from functools import cache
from typing import Final

APT_PACKAGES: Final = ("libegl1", "libgl1-mesa-dri", "libopengl0", "libosmesa6")

PROBE_SECONDS = 20.0  # a GPU driver that wakes up slowly takes a few seconds; one that hangs must not hang us
SUPPORTED: Final = ("egl", "osmesa", "glfw")
ALSO_GLFW: Final = ("enable", "enabled", "on", "true", "1", "glx")  # MuJoCo's other words for a window

# Names from EGL/egl.h and EGL/eglext.h.
EGL_PLATFORM_DEVICE_EXT = 0x313F
EGL_OPENGL_API = 0x30A2
EGL_SURFACE_TYPE, EGL_PBUFFER_BIT = 0x3033, 0x0001
EGL_RENDERABLE_TYPE, EGL_OPENGL_BIT = 0x3040, 0x0008
EGL_NONE = 0x3038


class GLUnavailableError(ValueError):
    """Nothing on this machine can draw, or the variables that choose who draws contradict each other."""


class GLContextError(ValueError):
    """An OpenGL context is asked for what it cannot do here and now."""


def choose_gl_backend() -> str:
    """Decides what draws, for this process and its children, and returns "egl", "osmesa" or "glfw".

    Sets MUJOCO_GL unless it is set already, and PYOPENGL_PLATFORM to match. Call it before MuJoCo is imported; where
    MuJoCo came first, its context class is replaced, because the one it bound then may need a window.

    Software GL draws in the calling thread unless LP_NUM_THREADS says otherwise: pictures this small are done before
    a second thread wakes up, and worker processes use the cores better.

    Raises:
        GLUnavailableError: no backend works, or MUJOCO_GL or PYOPENGL_PLATFORM asks for what cannot be.
    """
    os.environ.setdefault("LP_NUM_THREADS", "0")
    backend = _requested() or _first_that_works()
    if backend == "glfw" and not glfw_works():
        asked, display = os.environ["MUJOCO_GL"], os.environ.get("DISPLAY", "")
        raise GLUnavailableError(
            f"MUJOCO_GL={asked} draws in a window, which display {display!r} does not open; unset it, or choose egl"
        )
    if backend != "glfw":
        os.environ["PYOPENGL_PLATFORM"] = backend
    os.environ["MUJOCO_GL"] = backend
    if "mujoco" in sys.modules:
        _rebind_mujoco(backend)
    return backend


def current_renderer() -> str:
    """Who draws in this thread's current context, for example "llvmpipe (LLVM 15.0.6, 256 bits)".

    Raises:
        ValueError: no context is current.
    """
    name: bytes | None = None
    if "MUJOCO_GL" in os.environ:  # before the choice PyOpenGL would bind the window's platform, for good
        from OpenGL import GL, platform

        name = GL.glGetString(GL.GL_RENDERER) if platform.GetCurrentContext() else None
    if not name:
        raise ValueError("no OpenGL context is current in this thread; draw a picture first, then ask who drew it")
    return name.decode()


def egl_works() -> bool:
    """Whether EGL can make a context that needs no display. Takes about 0.05 s with Mesa, in a child process."""
    try:
        probe = subprocess.run(
            [sys.executable, "-I", "-S", __file__, "egl"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return probe.returncode == 0


@cache
def glfw_works() -> bool:
    """Whether there is a display that windows can be opened on. Tried in a child process."""
    code = "import glfw, sys, warnings; warnings.simplefilter('ignore'); sys.exit(not glfw.init())"
    try:
        probe = subprocess.run(
            [sys.executable, "-I", "-c", code], capture_output=True, stdin=subprocess.DEVNULL, timeout=PROBE_SECONDS
        )
    except subprocess.TimeoutExpired:
        return False
    return probe.returncode == 0


def osmesa_works() -> bool:
    """Whether the OSMesa library loads; it needs no driver and no device."""
    return _load_first("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so") is not None


def _requested() -> str | None:
    """The backend that the environment asks for, or None where it leaves the choice to us."""
    asked = os.environ.get("MUJOCO_GL", "").lower().strip()
    backend = "glfw" if asked in ALSO_GLFW else asked
    if backend and backend not in SUPPORTED:
        raise GLUnavailableError(
            f"MUJOCO_GL={asked} cannot draw here; unset it or choose one of {', '.join(SUPPORTED)}"
        )
    platform = os.environ.get("PYOPENGL_PLATFORM", "").lower().strip()
    if backend in ("egl", "osmesa") and platform not in ("", backend):
        raise GLUnavailableError(
            f"MUJOCO_GL={asked} and PYOPENGL_PLATFORM={platform} contradict each other; unset PYOPENGL_PLATFORM"
        )
    if not backend and platform in ("egl", "osmesa"):
        return platform
    return backend or None


def _first_that_works() -> str:
    if egl_works():
        return "egl"
    if osmesa_works():
        return "osmesa"
    raise GLUnavailableError(
        "no OpenGL that draws without a display: neither EGL nor OSMesa works here; "
        f"install one: sudo apt-get install -y {' '.join(APT_PACKAGES)}"
    )


def _rebind_mujoco(backend: str) -> None:
    """Gives an already imported MuJoCo the context class that it would have bound with MUJOCO_GL set in time."""
    context_class = importlib.import_module(f"mujoco.{backend}").GLContext
    for name in ("mujoco", "mujoco.gl_context", "mujoco.rendering.classic.gl_context"):
        if name in sys.modules:
            vars(sys.modules[name])["GLContext"] = context_class


def _load_first(*names: str) -> ctypes.CDLL | None:
    for name in names:
        try:
            return ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
    return None


def _make_egl_context() -> bool:
    """Does what MuJoCo will do: first device that initialises, a pbuffer configuration, a desktop OpenGL context."""
    egl = _load_first("libEGL.so.1", "libEGL.so")
    if egl is None or _load_first("libOpenGL.so.0", "libGL.so.1") is None:
        return False
    pointer, integer, unsigned = ctypes.c_void_p, ctypes.c_int, ctypes.c_uint
    egl.eglGetProcAddress.restype = pointer
    egl.eglGetProcAddress.argtypes = [ctypes.c_char_p]
    query = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    open_display = egl.eglGetProcAddress(b"eglGetPlatformDisplayEXT")
    if not query or not open_display:
        return False
    devices, count = (pointer * 16)(), integer()
    prototype = ctypes.CFUNCTYPE(unsigned, integer, ctypes.POINTER(pointer), ctypes.POINTER(integer))
    if not prototype(query)(len(devices), devices, ctypes.byref(count)):
        return False
    get_display = ctypes.CFUNCTYPE(pointer, unsigned, pointer, pointer)(open_display)
    egl.eglInitialize.argtypes = [pointer, pointer, pointer]
    displays = (get_display(EGL_PLATFORM_DEVICE_EXT, devices[i], None) for i in range(count.value))
    display = next((d for d in displays if d and egl.eglInitialize(d, None, None)), None)
    if display is None:
        return False
    wanted = (integer * 5)(EGL_SURFACE_TYPE, EGL_PBUFFER_BIT, EGL_RENDERABLE_TYPE, EGL_OPENGL_BIT, EGL_NONE)
    config, found = pointer(), integer()
    egl.eglChooseConfig.argtypes = [pointer, pointer, pointer, integer, pointer]
    egl.eglChooseConfig(display, wanted, ctypes.byref(config), 1, ctypes.byref(found))
    egl.eglCreateContext.restype = pointer
    egl.eglCreateContext.argtypes = [pointer, pointer, pointer, pointer]
    bound = found.value > 0 and egl.eglBindAPI(EGL_OPENGL_API)
    return bool(bound and egl.eglCreateContext(display, config, None, None))


if __name__ == "__main__":
    works = {"egl": _make_egl_context, "osmesa": osmesa_works}[sys.argv[1]]()
    os._exit(0 if works else 1)  # without the drivers' own clean-up, which may hang
