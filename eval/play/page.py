"""What surrounds the scene on the page: the words, the robot's picture, the switches. It decides nothing.

The text of the page is here and nowhere else.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np
import viser

from eval.play.policies import EXPERT
from eval.play.stage import Standing
from eval.report.overlay import Frame
from vla_policy.tokenizer import TextTokenizer

LEFT, RIGHT = 388, 330  # widths of the panels in pixels
CHOOSE = "choose an example …"
GOOD, BAD, WARN, DIM = "#2ecc8f", "#ff7a5c", "#ff9f1c", "#969ea8"
SPEEDS = {"a quarter": 0.25, "half": 0.5, "real time": 1.0, "as fast as possible": 0.0}
HELP = (
    "Type what the robot shall do and press Enter, or choose an example. It obeys at once. "
    "**Drag** things with the mouse, and it follows. Drag beside them to look from elsewhere."
)


class Page:
    """The widgets of one tab. Whoever owns it wires what people do with them; see `eval.play.session`.

    Args:
        client: the tab.
        tasks, policies: names to choose from.
        picture: side of the robot's picture in pixels.
    """

    def __init__(self, client: viser.ClientHandle, tasks: Sequence[str], policies: Sequence[str], picture: int) -> None:
        self._client = client
        gui = client.gui
        gui.set_panel_label("vla play")
        gui.main_panel.dock_right()
        gui.main_panel.set_width(RIGHT)
        with gui.add_folder("Tell the robot"):
            gui.add_markdown(HELP)
            with gui.add_form(None) as self.form:
                self.words = gui.add_text("Words", "", hint="Enter says it")
                self.speak = gui.add_button("Say it", icon=viser.Icon.SEND)
            self._reading = gui.add_html("")
            self.examples = gui.add_dropdown("Examples", (CHOOSE,), hint="What can be said in this scene")
            self._notice = gui.add_html("")
        self._standing = gui.add_html("")
        self.play = gui.add_button("Pause", icon=viser.Icon.PLAYER_PAUSE)
        self.moves = gui.add_button_group("Scene", ("Step", "Again", "Next"))
        with gui.add_folder("World"):
            self.task = gui.add_dropdown("Task", tuple(tasks))
            self.who = gui.add_dropdown("Who acts", (*policies, EXPERT), hint="A policy, or the task's scripted expert")
            self.seed = gui.add_number("Seed", 0, min=0, step=1, hint="Which scene")
            self.speed = gui.add_dropdown("Speed", tuple(SPEEDS), initial_value="real time")
            self.goes_on = gui.add_checkbox("Next scene by itself", True)
        left = gui.add_panel()
        with left.add_tab("What the robot sees", icon=viser.Icon.CAMERA):
            self._picture = gui.add_image(np.zeros((picture, picture, 3), np.uint8), jpeg_quality=85)
            with gui.add_folder("What each word looks at") as self._attention_folder:
                self._attention = gui.add_image(np.zeros((2, picture, 3), np.uint8), jpeg_quality=85)
            with gui.add_folder("Drawn over the picture"):
                self.boxes = gui.add_checkbox("Boxes", True, hint="Where the target is, and where the policy sees it")
                self.glow = gui.add_checkbox("Glow", True, hint="How likely each place is the target's")
                self.arrow = gui.add_checkbox("Arrow", True, hint="The action")
        left.dock_left()
        left.set_width(LEFT)
        self._shown_words = ""

    def show_picture(self, frame: Frame) -> None:
        self._picture.image = frame

    def show_attention(self, sheet: Frame | None) -> None:
        """What each word looks at; None hides it."""
        self._attention_folder.visible = sheet is not None
        if sheet is not None:
            self._attention.image = sheet

    def show_words(self, text: str, tokenizer: TextTokenizer | None) -> None:
        """What the one who acts was told. What somebody is just typing stays."""
        if self.words.value == self._shown_words:
            _put(self.words, text)
            self._shown_words = text
            self.show_reading(text, tokenizer)

    def were_said(self) -> None:
        """The words in the box were said; they are no longer being typed."""
        self._shown_words = self.words.value

    def show_reading(self, text: str, tokenizer: TextTokenizer | None) -> None:
        """How the one who acts reads these words."""
        self._reading.content = _row(f"It reads: {underlined(text, tokenizer)}")

    def show_notice(self, text: str, *, bad: bool = False) -> None:
        self._notice.content = _row(f'<span style="color:{BAD if bad else WARN}">{html.escape(text)}</span>')

    def show_standing(self, standing: Standing, rate: float, control_hz: float, tolerance: float | None) -> None:
        """How the episode stands, and the rate of control in steps a second."""
        share = 100 * standing.step / standing.horizon
        pace = f"control <b>{rate:.{int(rate < 10)}f}</b> of {control_hz:g} a second" if rate else "paused"
        lines = [
            f"Step <b>{standing.step}</b> of {standing.horizon} · {pace}",
            f'<div style="background:#8884;height:4px;border-radius:2px;margin:4px 0"><div style="background:{GOOD};'
            f'height:4px;border-radius:2px;width:{share:.0f}%"></div></div>',
        ]
        if standing.target:
            lines.append(f"Target: <b>{html.escape(standing.target)}</b>{self._away(standing, tolerance)}")
        if standing.verdict:
            colour = GOOD if standing.verdict.startswith("success") else BAD
            lines.append(f'<b style="color:{colour}">{html.escape(standing.verdict)}</b>')
        self._standing.content = _row("".join(line if "<div" in line else f"{line}<br/>" for line in lines))

    def _away(self, standing: Standing, tolerance: float | None) -> str:
        if standing.distance is None:
            return ""
        near = tolerance is not None and standing.distance <= tolerance
        within = "" if tolerance is None else f" (asked for: {100 * tolerance:g})"
        return f' · <span style="color:{GOOD if near else WARN}">{100 * standing.distance:.1f} cm away</span>{within}'

    def show_examples(self, texts: Sequence[str]) -> None:
        self.examples.options = (CHOOSE, *texts)
        _put(self.examples, CHOOSE)

    def show_playing(self, playing: bool) -> None:
        self.play.label = "Pause" if playing else "Play"
        self.play.icon = viser.Icon.PLAYER_PAUSE if playing else viser.Icon.PLAYER_PLAY

    def show_world(self, task: str, who: str, seed: int) -> None:
        _put(self.task, task)
        _put(self.who, who)
        _put(self.seed, seed)


def underlined(text: str, tokenizer: TextTokenizer | None) -> str:
    """Words as HTML: those that a policy never learned are underlined, those that it cuts off struck out."""
    if tokenizer is None:
        return html.escape(text)
    try:
        reading = tokenizer.reading(text)
    except ValueError:  # no word yet
        return html.escape(text)
    unknown = f'<u title="never learned" style="text-decoration:underline wavy {BAD};text-underline-offset:3px">'
    words = [
        f"{unknown}{html.escape(word)}</u>" if word in reading.unknown else html.escape(word) for word in reading.kept
    ]
    words += [f'<s title="too long" style="color:{DIM}">{html.escape(word)}</s>' for word in reading.dropped]
    return " ".join(words)


def full_page(client: viser.ClientHandle, worlds: int) -> None:
    """What a tab shows that is one too many."""
    client.gui.set_panel_label("vla play")
    client.gui.add_markdown(
        f"**All {worlds} worlds are taken.** Close another tab and reload this one, or start `vla play` with more "
        "`--worlds`."
    )


def _put(widget: Any, value: Any) -> None:
    """Change what a widget shows. Its setter looks read-only to a type checker."""
    widget.value = value


def _row(content: str) -> str:
    return f'<div style="font-size:0.85em;line-height:1.5;padding:0.1em 0.9em">{content}</div>'
