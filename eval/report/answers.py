"""What the conditions say about a policy, in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eval.controls import condition_title, describe, in_order
from eval.report.figures import interval, p_value, percent, points_and_interval
from eval.results import POLICY, ConditionResult, TaskResult, failure_counts
from training.progress import brief

# condition: (question, what "yes" means)
_CONTROLS = {
    "shuffled_instruction": ("Does it listen?", "it listens to the words"),
    "frozen_frames": ("Does it need motion?", "it needs motion"),
    "blank_image": ("Does it need the picture?", "it needs the picture"),
    "random_action": ("Does it beat chance?", "it does better than chance"),
    "previous_action": ("Does it beat repetition?", "it does better than repeating its first action"),
}
_VARIANTS = {
    "held_out_phrasing": ("Does it know new phrasings?", "phrasings it was never trained on"),
    "unseen_combination": ("Does it know unseen combinations?", "unseen combinations of colour and shape"),
}
RARE = 0.2
"""Below this success rate a control cannot show what the policy relies on."""
UNTOLD = "Cannot be told, too many episodes are invalid"
TROUBLE = 0.05
"""Above this share of invalid episodes a condition says more about the machine than about the policy."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One question about a policy: the `verdict` in a few words, the numbers, their distance to the policy's.

    `clause` says the same inside a sentence ("it listens to the words"), "" where nothing can be said.
    """

    question: str
    verdict: str
    numbers: str
    difference: str = ""
    clause: str = ""


def answers(task: TaskResult) -> list[Answer]:
    """What the conditions say about the policy; questions whose condition was not run are left out.

    "Yes" is said only where the paired 95 % interval excludes that the control changes nothing, and without
    "in part" only where it leaves at most half of the policy's successes.
    """
    policy = _measured(task, POLICY)
    if policy is None:
        return []
    found = []
    for name, (question, clause) in _CONTROLS.items():
        control = _measured(task, name)
        if control is None:
            continue
        verdict, said = "No sign of it", f"there is no sign that {clause}"
        if _troubled(control, policy):
            verdict, said = UNTOLD, ""
        elif _success(policy) < RARE:
            verdict, said = "Cannot be told, the policy rarely succeeds", ""
        elif _change(control, policy) < 0:
            full = _success(control) <= 0.5 * _success(policy)
            verdict, said = ("Yes", clause) if full else ("In part", f"{clause} in part")
        found.append(_answer(control, question, verdict, said))
    for name, (question, noun) in _VARIANTS.items():
        variant = _measured(task, name)
        if variant is None:
            continue
        change = _change(variant, policy)
        verdict = ("Less well", "As far as can be told", "Even better")[change + 1]
        said = ("it does worse on", "no difference was found on", "it does better on")[change + 1] + f" {noun}"
        if _troubled(variant, policy):
            verdict, said = UNTOLD, ""
        found.append(_answer(variant, question, verdict, said))
    expert = _measured(task, "expert")
    if expert is not None:
        verdict = ("The policy is better", "No difference found", "The expert is better")[_change(expert, policy) + 1]
        if _troubled(expert, policy):
            verdict = UNTOLD
        found.append(_answer(expert, "How far is the expert?", verdict, ""))
    return found


def summary(task_name: str, task: TaskResult) -> str:
    """A few sentences: how often it succeeds, what is wrong with that figure, and what the controls say about why."""
    policy = _measured(task, POLICY)
    if policy is None:
        return ". ".join([f"The plain policy was not measured on {task_name}", *_invalid(task)]) + "."
    sentences = [
        f"The policy succeeds in {percent(_success(policy))} of {policy.episodes} unseen {task_name} "
        f"episodes (95 % interval {interval(policy.low, policy.high)})",
        *_invalid(task),
    ]
    clauses = [answer.clause for answer in answers(task) if answer.clause]
    plain = [clause.removeprefix("it ") for clause in clauses if clause.startswith("it ")]
    if plain:
        sentences.append("It " + _enumerate(plain))
    sentences += [clause[0].upper() + clause[1:] for clause in clauses if not clause.startswith("it ")]
    if _success(policy) < RARE and any(name in task.conditions for name in _CONTROLS):
        sentences.append("It succeeds too rarely for the controls to show what it relies on")
    if task.control_rate_hz is not None:
        sentences.append(f"One robot would get {brief(task.control_rate_hz)} decisions a second on one CPU thread")
    return ". ".join(sentences) + "."


def _invalid(task: TaskResult) -> list[str]:
    """A sentence on the invalid episodes, if there are any, with the reasons."""
    parts = []
    for name, condition in in_order(task.conditions).items():
        if condition.invalid:
            reasons = failure_counts(condition, invalid=True)
            why = ", ".join(f"{count} \u00d7 {reason}" for reason, count in reasons.items())
            parts.append(f"{condition.invalid} of {condition.episodes} under {condition_title(name)} ({why})")
    return [f"Invalid episodes, which count as failures: {'; '.join(parts)}"] if parts else []


def _answer(condition: ConditionResult, question: str, verdict: str, clause: str) -> Answer:
    numbers = f"{percent(_success(condition))} succeed ({describe(condition.name)})"
    if condition.followed_rate is not None:
        numbers += f"; {percent(condition.followed_rate)} did as they were told"
    d = condition.difference_to_policy
    difference = "" if d is None else f"{points_and_interval(d)} points, p {p_value(d.p_value)}"
    return Answer(question=question, verdict=verdict, numbers=numbers, difference=difference, clause=clause)


def _measured(task: TaskResult, name: str) -> ConditionResult | None:
    condition = task.conditions.get(name)
    return condition if condition is not None and condition.episodes else None


def _troubled(*conditions: ConditionResult) -> bool:
    """Whether so many episodes are invalid that a comparison would take trouble for failure."""
    return any(condition.invalid > TROUBLE * condition.episodes for condition in conditions)


def _success(condition: ConditionResult) -> float:
    assert condition.success_rate is not None
    return condition.success_rate


def _enumerate(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _change(condition: ConditionResult, policy: ConditionResult) -> int:
    """-1, 0, 1: worse than the policy, not told apart, better. Without pairs the intervals must be apart."""
    d = condition.difference_to_policy
    if d is not None:
        return -1 if d.high < 0 else 1 if d.low > 0 else 0
    return -1 if condition.high < policy.low else 1 if condition.low > policy.high else 0
