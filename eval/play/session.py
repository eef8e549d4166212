"""One open tab: a thread in which its world lives, from the first drawing to the last.

What people do arrives in the server's own threads, and only leaves a note there; the world's thread reads the notes
between two control steps. So nothing heavy ever holds up the server, and nobody changes a world while it moves.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import viser

from configs.play import PlayConfig
from envs.rollout import EpisodeError
from envs.task import all_tasks, offers
from eval.play.page import CHOOSE, SPEEDS, Page
from eval.play.policies import EXPERT, Policies
from eval.play.scene import Scene
from eval.play.stage import Stage
from eval.report.attention import attention_sheet

WAKE_S = 0.05  # how often a world that stands still looks for notes
RATE_OVER = 20  # control steps over which the rate is taken


class Session(threading.Thread):
    """A tab's world.

    Args:
        client: the tab.
        policies: who can act.
        config: of the page.
        task, who, seed, words: what it begins with; "" for the task's own words. `who` acts if he was trained on it.
    """

    def __init__(
        self,
        client: viser.ClientHandle,
        policies: Policies,
        config: PlayConfig,
        *,
        task: str,
        who: str,
        seed: int,
        words: str,
    ) -> None:
        super().__init__(name=f"world-{client.client_id}", daemon=True)
        self._client, self._policies, self._config = client, policies, config
        self._begin = (task, who, seed, words)
        self._notes: queue.Queue[Callable[[], None]] = queue.Queue()
        self._closed = threading.Event()
        self.stage = Stage(policies, config.picture)

    def close(self) -> None:
        """The tab is gone: the world ends by itself, soon, and frees what it holds."""
        self._closed.set()

    def run(self) -> None:
        try:
            self._live()
        except Exception as error:  # noqa: BLE001 - one world's end must not pass unseen, nor end the others
            if not self._closed.is_set():
                traceback.print_exc()
                self._client.add_notification("This world broke down", f"Reload the page. {error}", color="red")
        finally:
            self.stage.close()

    # The world's thread.

    def _live(self) -> None:
        config, (task, who, seed, words) = self._config, self._begin
        self._page = Page(self._client, list(all_tasks()), self._policies.names, config.picture)
        self._scene = Scene(self._client, self._on_move)
        self._wire()
        self._playing, self._speed, self._wanted = True, 1.0, who
        self._moments: deque[float] = deque(maxlen=RATE_OVER + 1)
        self._picture_due = self._scene_due = self._ended = 0.0
        self.stage.seed = seed
        self._choose_task(task)
        if words:
            self._do(lambda: self._say(words))
        due = time.perf_counter()
        while not self._closed.is_set():
            self._read_notes()
            now = time.perf_counter()
            if not self._playing or self.stage.done:
                self._wait(now)
                due = time.perf_counter()
                continue
            period = 1 / (self.stage.spec.control_hz * self._speed) if self._speed else 0.0
            if now < due:
                self._closed.wait(min(due - now, WAKE_S))
                continue
            due = max(due + period, now)  # time that was lost is not made up for
            self._step()

    def _wait(self, now: float) -> None:
        """Nothing moves: wait for a note, or for the next scene."""
        if self._playing and self.stage.done and self._page.goes_on.value and now > self._ended + self._config.hold_s:
            self._ended = now  # whatever comes of it, it is not tried again at once
            self._do(lambda: self._restart(self.stage.seed + 1))
            return
        try:
            self._do(self._notes.get(timeout=WAKE_S))
        except queue.Empty:
            return

    def _read_notes(self) -> None:
        while not self._notes.empty():
            self._do(self._notes.get())

    def _do(self, note: Callable[[], None]) -> None:
        try:
            note()
        except (ValueError, EpisodeError) as error:
            self._page.show_notice(" ".join(str(error).split()), bad=True)

    def _step(self) -> None:
        now = time.perf_counter()
        self.stage.wants_shot = now >= self._picture_due
        try:
            self.stage.step()
        except EpisodeError as error:
            self._pause(False)
            print(f"vla: {error}", file=sys.stderr)
            self._page.show_notice(f"the task failed: {error}", bad=True)
            return
        self._moments.append(time.perf_counter())
        if self.stage.done:
            self._ended = time.perf_counter()
            self._show()
            return
        if now >= self._scene_due:
            self._scene_due = now + 1 / self._config.scene_hz
            self._show_scene()
        if self.stage.wants_shot:
            self._picture_due = now + 1 / self._config.picture_hz
            self._show_picture()

    # What is shown.

    def _show(self) -> None:
        self._show_scene()
        self._show_picture()

    def _show_scene(self) -> None:
        stage = self.stage
        model, data = offers(stage.env, "model"), offers(stage.env, "data")
        if model is not None and data is not None:
            self._scene.show(model, data, stage.places(), stage.meant)

    def _show_picture(self) -> None:
        page, stage, standing = self._page, self.stage, self.stage.standing
        shot = stage.shot
        if not page.boxes.value:
            shot = replace(shot, true_box=None, predicted_box=None)
        if not page.glow.value:
            shot = replace(shot, location=None)
        if not page.arrow.value:
            shot = replace(shot, action=None)
        page.show_picture(shot.draw(standing.verdict or None, scale=1))
        page.show_attention(attention_sheet(shot.picture, stage.heats, self._config.picture) if stage.heats else None)
        page.show_standing(standing, self.rate, stage.spec.control_hz, stage.spec.tolerance)

    @property
    def rate(self) -> float:
        """Control steps a second, of late."""
        between = [later - earlier for earlier, later in pairwise(self._moments)]
        return 1 / float(np.mean(between)) if between else 0.0

    def _show_all(self) -> None:
        stage = self.stage
        tokenizer = None if stage.checkpoint is None else stage.checkpoint.tokenizer
        self._page.show_world(stage.spec.name, stage.who, stage.seed)
        self._page.show_examples(stage.examples)
        self._page.show_words(stage.world.instruction, tokenizer)
        self._moments.clear()
        self._show()

    # What people do, in the world's thread.

    def _choose(self, task: str, who: str) -> None:
        """Another task or actor; what was there goes on if that cannot be."""
        stage = self.stage
        try:
            stage.choose(task, who)
        except (ValueError, EpisodeError):
            if stage.is_set:
                self._page.show_world(stage.spec.name, stage.who, stage.seed)
            raise
        self._look_from()
        self._show_all()

    def _choose_task(self, task: str) -> None:
        """Another task, done by who was chosen if he can."""
        who = self._policies.for_task(task, self._wanted)
        self._choose(task, who)
        alone = who == EXPERT != self._wanted
        self._page.show_notice(f"no policy here was trained on {task}: its expert acts" if alone else "")

    def _choose_who(self, who: str) -> None:
        """In this task, if he was trained on it, else in the first of his own."""
        tasks = () if who == EXPERT else self._policies.load(who).purpose.tasks
        task = self.stage.spec.name
        self._choose(tasks[0] if tasks and task not in tasks else task, who)
        self._wanted = who
        self._page.show_notice("")

    def _say_typed(self) -> None:
        self._page.were_said()
        self._say(self._page.words.value)

    def _say(self, text: str) -> None:
        task = self.stage.spec.name
        self._page.show_notice(self.stage.say(text))
        if self.stage.spec.name != task:
            self._look_from()
        self._show_all()

    def _restart(self, seed: int) -> None:
        self.stage.restart(seed)
        self._page.show_notice("")
        self._show_all()

    def _move(self, scene_move: str) -> None:
        if scene_move == "Step":
            self._pause(False)
            self._picture_due = 0.0
            self._step()
            self._show()
        else:
            self._restart(self.stage.seed + (scene_move == "Next"))

    def _pause(self, playing: bool) -> None:
        self._playing = playing
        self._moments.clear()
        self._page.show_playing(playing)

    def _hold(self, thing: int, place: np.ndarray | None) -> None:
        if place is None:
            self.stage.let_go(thing)
            return
        self.stage.hold(thing, place)
        if not self._playing:
            self.stage.look()
            self._show()

    def _look_from(self) -> None:
        model, data = offers(self.stage.env, "model"), offers(self.stage.env, "data")
        if model is None or data is None:
            self._page.show_notice("this task has no MuJoCo model to be shown in 3D; see the robot's picture")
            return
        hand = self.stage.world.info.get("privileged", {}).get("hand", model.stat.center)
        self._scene.look_from(model, data, self.stage.camera, np.array([*hand[:2], hand[2] / 2]))

    # What people do, in the server's threads: a note each.

    def _wire(self) -> None:
        page = self._page
        page.form.on_submit(lambda _: self._note(self._say_typed))
        page.speak.on_click(lambda _: page.form.submit())
        page.words.on_update(self._by_hand(lambda text: self._show_typed(text)))
        page.examples.on_update(self._by_hand(lambda text: self._say(text) if text != CHOOSE else None))
        page.play.on_click(lambda _: self._note(lambda: self._pause(not self._playing)))
        page.moves.on_click(lambda event: self._note(partial(self._move, event.target.value)))
        page.task.on_update(self._by_hand(self._choose_task))
        page.who.on_update(self._by_hand(self._choose_who))
        page.seed.on_update(self._by_hand(lambda seed: self._restart(int(seed))))
        page.speed.on_update(self._by_hand(lambda name: setattr(self, "_speed", SPEEDS[name])))
        for box in (page.boxes, page.glow, page.arrow):
            box.on_update(self._by_hand(lambda _: self._show_picture()))

    def _on_move(self, thing: int, place: np.ndarray | None) -> None:
        self._note(lambda: self._hold(thing, place))

    def _note(self, what: Callable[[], None]) -> None:
        self._notes.put(what)

    def _by_hand(self, do: Callable[[Any], None]) -> Callable[[Any], None]:
        """Notes the new value of a widget if a person changed it, and not the world itself."""

        def changed(event: viser.GuiEvent[Any]) -> None:
            if event.client is not None:
                self._note(partial(do, event.target.value))

        return changed

    def _show_typed(self, text: str) -> None:
        checkpoint = self.stage.checkpoint
        self._page.show_reading(text, None if checkpoint is None else checkpoint.tokenizer)
