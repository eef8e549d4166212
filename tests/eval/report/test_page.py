"""The Markdown table, the answers in words and the HTML file."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from eval.report.answers import Answer, answers, summary
from eval.report.page import markdown_table, seed_ranges, write_report
from eval.report.plots import error_matrix, learning_curve_plot, success_bars
from eval.report.video import write_mp4
from eval.results import CheckpointInfo, ConditionResult, EpisodeResult, Results, TaskResult, summarise_condition

EPISODES = 60


def condition(
    name: str, successes: int, policy: ConditionResult | None = None, episodes: int = EPISODES
) -> ConditionResult:
    rows = [
        EpisodeResult(
            seed=seed,
            success=seed < successes,
            steps=4,
            instruction="track the <red> ball",
            target="red ball",
            mean_error_m=0.02,
            errors_m=[0.2, 0.1, 0.05, 0.02],
            box_iou=0.6,
            followed_instruction=seed % 2 == 0 if name == "shuffled_instruction" else None,
            failure="" if seed < successes else "lost target",
        )
        for seed in range(episodes)
    ]
    return summarise_condition(name, rows, policy=policy.results if policy else None)


def spoilt(result: ConditionResult, invalid: int) -> ConditionResult:
    """The same with so many of its last episodes lost."""
    kept = result.results[: result.episodes - invalid]
    reasons = ["worker died"] * (invalid // 2) + ["worker hung for 120 s"] * (invalid - invalid // 2)
    lost = [
        EpisodeResult(seed=len(kept) + i, success=False, valid=False, failure=reason)
        for i, reason in enumerate(reasons)
    ]
    return summarise_condition(result.name, kept + lost)


def task(**successes: int) -> TaskResult:
    policy = condition("policy", successes.pop("policy"))
    others = {name: condition(name, count, policy) for name, count in successes.items()}
    return TaskResult(control_rate_hz=99.6, conditions={"policy": policy, **others})


def make_results(**tasks: TaskResult) -> Results:
    return Results(
        checkpoint=CheckpointInfo(path="runs/a", provenance={"commit": "abc"}),
        seed=0,
        tasks=dict(tasks),
        settings={"control_hz": 20, "tolerance_m": {"track": 0.04}, "criteria": {"track": "within 4 cm & still"}},
        versions={"python": "3.11"},
        gl_renderer="llvmpipe",
    )


CLEAR = {
    "policy": 57,
    "shuffled_instruction": 4,
    "frozen_frames": 20,
    "blank_image": 0,
    "previous_action": 0,
    "held_out_phrasing": 56,
    "unseen_combination": 40,
    "expert": 60,
}


def verdicts(found: list[Answer]) -> dict[str, str]:
    return {answer.question: answer.verdict for answer in found}


def test_markdown_table() -> None:
    table = markdown_table(make_results(track=task(**CLEAR))).splitlines()
    assert len(table) == 2 + len(CLEAR)
    assert len({line.count("|") for line in table}) == 1
    assert table[2].startswith(
        "| track | policy | 95.0 % (86.3 to 98.3) | \u2013 | 2.0 cm | 0.60 |" + 4 * " \u2013 |" + " 100 Hz | 60 | 0 |"
    )
    assert sum("Hz" in line for line in table) == 1  # the policy's, whatever it is shown
    assert "shuffled instruction | 6.7 % (" in "\n".join(table)
    assert "\u221288.3 (" in "\n".join(table)


def test_clear_controls_get_clear_answers() -> None:
    said = verdicts(answers(task(**CLEAR)))
    assert said["Does it listen?"] == "Yes"
    assert said["Does it need motion?"] == "Yes"
    assert said["Does it need the picture?"] == "Yes"
    assert said["Does it beat repetition?"] == "Yes"
    assert said["Does it know new phrasings?"] == "As far as can be told"
    assert said["Does it know unseen combinations?"] == "Less well"
    text = summary("track", task(**CLEAR))
    assert text.startswith("The policy succeeds in 95 % of 60 unseen track episodes (95 % interval 86.3 to 98.3 %).")
    assert "It listens to the words, needs motion, needs the picture" in text
    assert "does better than repeating its first action" in text
    assert text.endswith("One robot would get 100 decisions a second on one CPU thread.")
    assert "nvalid" not in text


def test_controls_without_effect_are_not_called_a_success() -> None:
    said = verdicts(answers(task(policy=57, shuffled_instruction=56, frozen_frames=45)))
    assert said == {"Does it listen?": "No sign of it", "Does it need motion?": "In part"}
    assert "There is no sign that it listens" in summary("track", task(policy=57, shuffled_instruction=56))


def test_a_policy_that_fails_shows_nothing() -> None:
    said = verdicts(answers(task(policy=4, shuffled_instruction=0)))
    assert said["Does it listen?"].startswith("Cannot be told")
    assert "too rarely" in summary("track", task(policy=4, shuffled_instruction=0))
    assert summary("track", TaskResult()) == "The plain policy was not measured on track."


def test_invalid_episodes_are_told_with_their_reasons() -> None:
    clear = task(**CLEAR).conditions
    few = TaskResult(conditions={**clear, "expert": spoilt(clear["expert"], 3)})
    assert (
        "Invalid episodes, which count as failures: "
        "3 of 60 under expert (2 \u00d7 worker hung for 120 s, 1 \u00d7 worker died)."
    ) in summary("track", few)
    assert verdicts(answers(few)) == verdicts(answers(task(**CLEAR)))
    alone = TaskResult(conditions={"expert": spoilt(clear["expert"], 1)})
    assert "1 of 60 under expert (1 \u00d7 worker hung for 120 s)" in summary("track", alone)


@pytest.mark.parametrize("name", ["shuffled_instruction", "held_out_phrasing", "expert"])
def test_trouble_is_not_taken_for_an_answer(name: str) -> None:
    whole = task(policy=57, **{name: 56})
    for lost in (name, "policy"):
        conditions = {**whole.conditions, lost: spoilt(whole.conditions[lost], 40)}
        [answer] = answers(TaskResult(conditions=conditions))
        assert answer.verdict == "Cannot be told, too many episodes are invalid"
        assert not answer.clause


def test_an_unfinished_evaluation_is_called_so(tmp_path: Path) -> None:
    results = make_results(track=task(policy=50))
    assert "was not finished" not in write_report(results, tmp_path).read_text()
    assert "was not finished" in write_report(replace(results, complete=False), tmp_path).read_text()


class Page(HTMLParser):
    """Collects tags and attributes, and checks that what is opened is closed."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_nothing_else(tmp_path: Path) -> None:
    video = write_mp4(tmp_path / "a.mp4", [np.full((32, 32, 3), 40 * i, np.uint8) for i in range(5)], fps=20)
    curve = [{"step": 10 * i, "loss": 1.0 / i, "action_loss": 0.5 / i, "seconds": 2.0 * i} for i in range(1, 200)]
    results = make_results(track=task(**CLEAR), reach=task(policy=50))
    path = write_report(results, tmp_path / "out", {"track/policy/59": video, "by hand": video}, curve)
    text = path.read_text()
    assert path == tmp_path / "out" / "report.html"
    assert list(path.parent.iterdir()) == [path]
    page = Page(text)
    for tag, name, value in page.attributes:
        if name in ("src", "href"):
            assert value.startswith(("data:video/mp4;base64,", "#")), (tag, name, value[:60])
    assert "://" not in text
    assert "@import" not in text
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    referred = {value[1:] for _, name, value in page.attributes if name == "href"}
    assert referred <= set(ids)
    assert text.count("<video ") == 2
    assert text.count('<svg class="plot"') == 2 + 2 + 1
    assert "track the &lt;red&gt; ball" in text
    assert "<red>" not in text
    assert "within 4\u00a0cm &amp; still" in text or "within 4 cm &amp; still" in text
    assert "failure: lost target" in text
    assert "by hand" in text
    assert "llvmpipe" in text
    assert "0 to 59; failed: 57, 58, 59" in text or "0 to 59; failed: 57 to 59" in text


def test_the_page_is_the_same_each_time(tmp_path: Path) -> None:
    results = make_results(track=task(**CLEAR))
    first = write_report(results, tmp_path / "a").read_bytes()
    assert write_report(results, tmp_path / "b").read_bytes() == first


@pytest.mark.parametrize(
    "tasks",
    [
        {},
        {"track": TaskResult()},
        {"track": TaskResult(conditions={"policy": summarise_condition("policy", [])})},
        {"track": TaskResult(conditions={"expert": condition("expert", 3, episodes=3)})},
        {"track": TaskResult(conditions={"mine": condition("mine", 1, episodes=3)})},
        {
            "track": TaskResult(
                conditions={
                    "policy": summarise_condition("policy", [EpisodeResult(seed=1, success=False, valid=False)])
                }
            )
        },
    ],
)
def test_little_or_nothing_to_report(tmp_path: Path, tasks: dict[str, TaskResult]) -> None:
    results = make_results(**tasks)
    Page(write_report(results, tmp_path, {}, []).read_text())
    assert markdown_table(results).startswith("| task |")


def test_bad_videos_are_named(tmp_path: Path) -> None:
    results = make_results()
    with pytest.raises(ValueError, match=r"nowhere\.mp4: the video 'a' cannot be read"):
        write_report(results, tmp_path, {"a": tmp_path / "nowhere.mp4"})
    with pytest.raises(ValueError, match=r"got a video named \.avi, expected \.mp4"):
        write_report(results, tmp_path, {"a": tmp_path / "a.avi"})
    assert not list(tmp_path.iterdir())


def test_episodes_that_ended_early_keep_their_last_distance() -> None:
    rows = [
        EpisodeResult(seed=0, success=True, errors_m=[0.3, 0.1]),
        EpisodeResult(seed=1, success=False, errors_m=[0.3, 0.2, 0.2, 0.4]),
        EpisodeResult(seed=2, success=False, valid=False, errors_m=[9.0]),
    ]
    matrix = error_matrix(summarise_condition("policy", rows))
    assert matrix is not None
    np.testing.assert_array_equal(matrix, [[0.3, 0.1, 0.1, 0.1], [0.3, 0.2, 0.2, 0.4]])
    assert error_matrix(summarise_condition("policy", [])) is None


def test_plots_take_incomplete_input() -> None:
    assert success_bars({}, {}) is None
    assert learning_curve_plot([]) is None
    assert learning_curve_plot([{"step": 1, "loss": 2.0}]) is None  # one point is no curve
    rows = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}, {"note": 1}, {"step": 3, "loss": 1.0}]
    svg = learning_curve_plot(rows)
    assert svg is not None
    assert svg.startswith("<svg")
    assert "var(--policy)" in svg
    assert "#0102" not in svg  # every stand-in colour was replaced


def test_seed_ranges() -> None:
    assert seed_ranges([]) == "\u2013"
    assert seed_ranges([4, 1, 2, 3, 7]) == "1 to 4, 7"
    assert seed_ranges([8, 7]) == "7, 8"
