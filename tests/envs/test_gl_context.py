"""Drawing, closing and dropping from any thread, and what is said where that cannot be."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from envs.gl import GLContextError
from envs.rendering import Renderer
from envs.tabletop.env import TabletopEnv
from envs.tabletop.tasks import TASKS

MakeEnv = Callable[..., TabletopEnv]
STEPS = 4


def episode(env: TabletopEnv, seed: int) -> list[bytes]:
    """The pictures of a few steps."""
    seen = [env.reset(seed=seed)[0]] + [env.step(np.ones(2))[0] for _ in range(STEPS)]
    return [observation["pixels"]["front"].tobytes() for observation in seen]


def elsewhere(work: Callable[[], Any]) -> Any:
    """What `work` gives in a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def test_an_environment_may_change_its_thread_at_any_time(make_env: MakeEnv) -> None:
    env, other = make_env("track"), make_env("track", render_mode="rgb_array")
    expected = episode(env, 3)
    assert elsewhere(lambda: episode(env, 3)) == expected
    other.reset(seed=3)
    for index in range(STEPS):
        seen = elsewhere(lambda: other.step(np.ones(2)))[0] if index % 2 else other.step(np.ones(2))[0]
        assert seen["pixels"]["front"].tobytes() == expected[index + 1]
        assert elsewhere(other.render).std() > 10
    assert other.gl_renderer == elsewhere(lambda: other.gl_renderer)


def test_asyncio_steps_in_threads(make_env: MakeEnv) -> None:
    env, expected = make_env("track"), episode(make_env("track"), 5)

    async def run() -> list[bytes]:
        seen, _ = await asyncio.to_thread(env.reset, seed=5)
        pictures = [seen["pixels"]["front"].tobytes()]
        for _ in range(STEPS):
            seen, *_ = await asyncio.to_thread(env.step, np.ones(2))
            pictures.append(seen["pixels"]["front"].tobytes())
        await asyncio.to_thread(env.close)
        return pictures

    assert asyncio.run(run()) == expected


def test_several_threads_take_turns_with_several_environments(make_env: MakeEnv) -> None:
    expected = {seed: episode(make_env("track", cameras=("front",)), seed) for seed in range(3)}
    envs = {seed: make_env("track", cameras=("front",)) for seed in expected}
    with ThreadPoolExecutor(4) as pool:
        started = {seed: pool.submit(env.reset, seed=seed) for seed, env in envs.items()}
        pictures = {seed: [one.result()[0]["pixels"]["front"].tobytes()] for seed, one in started.items()}
        for _ in range(STEPS):
            steps = {seed: pool.submit(env.step, np.ones(2)) for seed, env in envs.items()}
            for seed, step in steps.items():
                pictures[seed].append(step.result()[0]["pixels"]["front"].tobytes())
        closed = [pool.submit(env.close) for env in envs.values()]
    assert pictures == expected
    assert all(one.exception() is None for one in closed)


def test_many_episodes_at_once(make_env: MakeEnv) -> None:
    expected = episode(make_env("track"), 1)
    envs = [make_env("track") for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda env: episode(env, 1), envs)) == [expected] * 4


def test_closing_in_another_thread_and_going_on(make_env: MakeEnv) -> None:
    env = make_env("track", render_mode="rgb_array")
    expected = elsewhere(lambda: episode(env, 0))
    env.render()
    env.close()
    elsewhere(env.close)
    assert episode(env, 0) == expected
    elsewhere(env.close)
    env.close()


def test_dropping_in_the_middle_of_anothers_picture_disturbs_nothing(
    make_env: MakeEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = make_env("track")
    expected = episode(env, 0)
    read, dropped = Renderer._read, []

    def collect_first(self: Renderer, *args: Any) -> None:
        if dropped:
            dropped.clear()
            gc.collect()
        read(self, *args)

    def drop() -> None:
        lost = TASKS["track"](size=32)
        lost.reset(seed=1)
        lost.loop = [lost]  # type: ignore[attr-defined]  # so that only the collector finds it
        dropped.append(lost)

    drop()
    monkeypatch.setattr(Renderer, "_read", collect_first)
    assert episode(env, 0) == expected
    monkeypatch.undo()
    drop()
    monkeypatch.setattr(Renderer, "_read", collect_first)
    assert elsewhere(lambda: episode(env, 0)) == expected
    assert not dropped


def test_a_context_that_somebody_holds_elsewhere_is_refused_in_one_line_and_can_be_closed_later(
    make_env: MakeEnv,
) -> None:
    env = make_env("track", cameras=("front",))
    env.reset(seed=0)
    context = env._pictures.observed()._context
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        context._context.make_current()
        held.set()
        let_go.wait()
        context._let_go()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        for refused in (lambda: env.step(np.ones(2)), env.close):
            with pytest.raises(GLContextError, match=r"cannot be used in thread 'MainThread' .* let go of it") as error:
                refused()
            assert "\n" not in str(error.value)
    finally:
        let_go.set()
        thread.join()
    env.close()
    assert env._pictures._observed is None
    env.reset(seed=0)


def test_a_renderer_that_was_closed_says_so(make_env: MakeEnv) -> None:
    env = make_env("track")
    env.reset(seed=0)
    renderer = Renderer(env.model, 32)
    renderer.close()
    with pytest.raises(GLContextError, match="closed; make another one"):
        renderer.draw(env.data, "front")
    renderer.close()
