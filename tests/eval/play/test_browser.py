"""The live page in a real browser: what a person types, sees and drags. Minutes long; `make browser` runs it.

With VLA_PLAY_FILM=docs/play.webp in the environment it makes the moving picture of the documentation.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from configs.play import PlayConfig
from eval.play.policies import Policies
from eval.play.server import PlayServer
from eval.play.session import Session
from eval.report.video import write_webp

pytestmark = pytest.mark.browser

CHROMIUM = Path("/usr/bin/chromium")
# Software WebGL, as there need be no graphics card.
FLAGS = ("--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")
VIEW = {"width": 1180, "height": 700}
PATIENCE = 240.0  # seconds for anything to come about: the browser draws in software, beside the simulation
FILM = os.environ.get("VLA_PLAY_FILM", "")
FILM_STEPS, FILM_FPS, FILM_WIDTH = 3, 4, 860  # control steps between two pictures


@pytest.fixture(scope="module")
def server() -> Iterator[PlayServer]:
    # Seldom drawn: what is tested is not how fast a browser without a graphics card is.
    config = PlayConfig(port=0, scene_hz=3, picture_hz=3, worlds=2)
    with PlayServer(Policies(["default"]), config, task="track", who="default") as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}; install Debian's chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        yield browser
        browser.close()


class Tab:
    """A tab as a person sees it, and the world behind it."""

    def __init__(self, browser: Any, server: PlayServer) -> None:
        before = set(server.sessions)
        self.page = browser.new_page(viewport=VIEW)
        self.page.set_default_timeout(1000 * PATIENCE)
        self.page.goto(server.address)
        self.until(lambda: bool(set(server.sessions) - before))
        [number] = set(server.sessions) - before
        self.session: Session = server.sessions[number]
        self.page.get_by_text("Target:").first.wait_for()

    @property
    def text(self) -> str:
        return str(self.page.inner_text("body"))

    @property
    def target(self) -> str:
        found = re.search(r"Target: (.+?)( ·|\n|$)", self.text)
        return found[1] if found else ""

    @property
    def away(self) -> float:
        """Centimetres of the hand from the target, as the page says."""
        found = re.search(r"([\d.]+) cm away", self.text)
        return float(found[1]) if found else np.inf

    def say(self, words: str) -> None:
        box = self.page.locator("form input").first
        box.fill(words)
        box.press("Enter")

    def until(self, come: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not come():
            assert time.monotonic() < end, "it did not come about"
            self.page.wait_for_timeout(50)


@pytest.mark.timeout(1800)
def test_words_are_obeyed_at_once_and_other_words_in_mid_episode(browser: Any, server: PlayServer) -> None:
    tab = Tab(browser, server)
    stage = tab.session.stage
    tab.say("follow the blue ball")
    tab.until(lambda: tab.target == "blue ball" and tab.away <= 4)
    episode, step = stage.world, stage.world.step
    other = next(text for text in stage.examples if stage.spec.read(text)["referent"].shape != "ball")
    tab.say(other)
    tab.until(lambda: tab.target not in ("", "blue ball"))
    assert stage.world is episode  # in the same scene, which went on
    assert stage.world.step >= step > 0
    tab.until(lambda: tab.target != "blue ball" and tab.away <= 4)
    tab.say("follow the flumph ball")
    tab.until(lambda: tab.page.locator("u", has_text="flumph").count() == 1)  # it is underlined
    tab.page.close()


@pytest.mark.timeout(1800)
def test_two_tabs_have_a_world_each_and_a_closed_one_frees_its_own(browser: Any, server: PlayServer) -> None:
    first = Tab(browser, server)
    second = Tab(browser, server)
    assert first.session is not second.session
    assert first.session.stage.env is not second.session.stage.env
    first.page.get_by_role("button", name="Pause").click()  # or its next episode would bring other words
    first.page.get_by_role("button", name="Play").wait_for()
    words = first.session.stage.world.instruction
    second.say("follow the yellow ball")
    second.until(lambda: second.target == "yellow ball")
    assert first.session.stage.world.instruction == words
    third = browser.new_page(viewport=VIEW)  # one too many
    third.goto(server.address)
    third.get_by_text("worlds are taken").wait_for(timeout=1000 * PATIENCE)
    third.close()
    second.page.close()
    second.session.join(60)
    assert not second.session.is_alive()
    assert not second.session.stage.is_set  # the environment is closed, and with it what drew it
    assert second.session not in server.sessions.values()
    assert first.session.is_alive()
    first.page.close()
    first.session.join(60)
    assert not first.session.is_alive()


@pytest.mark.timeout(1800)
def test_a_thing_is_dragged_by_the_mouse(browser: Any, server: PlayServer) -> None:
    tab = Tab(browser, server)
    tab.page.get_by_role("button", name="Pause").click()
    tab.page.get_by_role("button", name="Play").wait_for()
    stage = tab.session.stage
    thing = stage.meant
    assert thing is not None
    before = stage.places()[thing]
    x, y = on_screen(tab, before)
    mouse = tab.page.mouse
    mouse.move(x, y)
    mouse.down()
    for pixels in range(8, 49, 8):  # as slowly as a hand, and as a browser without a graphics card notices
        tab.page.wait_for_timeout(500)
        mouse.move(x + pixels, y + pixels)
    mouse.up()
    tab.until(lambda: bool(np.linalg.norm(stage.places()[thing] - before) > 0.05))
    step = stage.world.step
    tab.page.get_by_role("button", name="Play").click()
    tab.until(lambda: stage.world.step > step)
    tab.page.close()


@pytest.mark.skipif(not FILM, reason="VLA_PLAY_FILM names no file")
@pytest.mark.timeout(3600)
def test_a_moving_picture_for_the_documentation(browser: Any, server: PlayServer) -> None:
    tab = Tab(browser, server)
    tab.page.get_by_role("button", name="Pause").click()
    tab.page.get_by_text("Software WebGL").locator("xpath=ancestor::*[.//button][1]").get_by_role("button").click()
    stage = tab.session.stage
    film = []
    for words in ("follow the blue ball", "chase the purple cube"):
        tab.say(words)
        tab.until(lambda said=words: stage.world.instruction == said)
        for _ in range(9):
            for _ in range(FILM_STEPS):
                step = stage.world.step
                tab.page.get_by_role("button", name="Step").click()
                tab.until(lambda before=step: stage.world.step > before)
            tab.page.wait_for_timeout(500)  # until it is drawn
            film.append(np.asarray(Image.open(BytesIO(tab.page.screenshot())).convert("RGB")))
    write_webp(FILM, film, FILM_FPS, width=FILM_WIDTH, quality=50)
    tab.page.close()


def on_screen(tab: Tab, point: np.ndarray) -> tuple[float, float]:
    """Where a point of the world (3,) is on the tab's screen, in pixels."""
    camera = tab.session._client.camera
    canvas = tab.page.locator("canvas").first.bounding_box()
    forward = camera.look_at - camera.position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    ahead = point - camera.position
    half = np.tan(camera.fov / 2) * float(ahead @ forward)
    across, down = float(ahead @ right) / half, -float(ahead @ up) / half
    middle = canvas["x"] + canvas["width"] / 2, canvas["y"] + canvas["height"] / 2
    return middle[0] + across * canvas["height"] / 2, middle[1] + down * canvas["height"] / 2
