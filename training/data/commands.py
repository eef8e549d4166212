"""`vla data export` and `vla data import`: datasets as other tools keep them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser

from configs.commands import COMMANDS
from configs.decode import decode
from configs.lerobot import ImportConfig
from configs.names import unknown
from configs.options import parse, plain_parser
from training.progress import Progress

ACTIONS = {
    "export": "write a dataset in LeRobot's format v3.0",
    "import": "read a dataset of LeRobot's format v3.0",
}


def data(arguments: list[str]) -> int:
    """Another tool's dataset from one of ours, or the other way round."""
    actions = {"export": _export, "import": _import}
    asked = arguments[0] if arguments else "--help"
    if asked in ("-h", "--help"):
        listed = "\n".join(f"  {name:<8}{purpose}" for name, purpose in ACTIONS.items())
        more = "`vla data ACTION --help` says more about each."
        print(f"usage: vla data ACTION [options]\n\n{COMMANDS['data'].purpose}\n\n{listed}\n\n{more}")
        return 0
    if asked not in actions:
        raise unknown("action", asked, actions)
    return actions[asked](arguments[1:])


def _export(arguments: list[str]) -> int:
    parser = _parser("export")
    parser.add_argument("dataset", type=str, help="folder of a dataset, such as data/track")
    parser.add_argument("--format", type=Literal["lerobot"], default="lerobot", help="whose")
    parser.add_argument("--out", type=str, required=True, help="folder to write")
    words = "video (H.264: small, with its errors) or png (exact)"
    parser.add_argument("--pictures", type=Literal["video", "png"], default="video", help=words)
    parsed = parse(parser, arguments)
    from training.data.episodes import open_dataset
    from training.data.lerobot.export import export_lerobot

    out, dataset = Path(parsed.out), open_dataset(Path(parsed.dataset))
    with Progress("export", dataset.episodes, "episodes") as progress:
        export_lerobot(dataset, out, pictures=parsed.pictures, on_progress=lambda done, _: progress.update(done))
    print(f"{out}: {dataset.episodes} episodes, {dataset.steps} frames")
    return 0


def _import(arguments: list[str]) -> int:
    parser = _parser("import")
    parser.add_argument("source", type=str, help="folder of the dataset, which holds meta/, data/ and perhaps videos/")
    parser.add_argument("--format", type=Literal["lerobot"], default="lerobot", help="whose")
    parser.add_argument("--out", type=str, required=True, help="folder of the dataset to write")
    parser.add_argument("--task", type=str, default="", help="what the task is called; the folder's name if left out")
    parser.add_argument("--cameras", type=tuple[str, ...], default=(), help="which; all if left out")
    words = "pixels a side of the pictures, of whose others than squares the middle is taken; as they are if left out"
    parser.add_argument("--size", type=int, help=words)
    parser.add_argument("--state", type=str, default=ImportConfig.state, help="feature that is the proprioception")
    parser.add_argument("--action", type=str, default=ImportConfig.action, help="feature that is the action")
    parser.add_argument("--instruction", type=str, default="", help="for frames whose own is empty")
    words = "of each action, what becomes -1; with --action-high. From the smallest and largest values if left out"
    parser.add_argument("--action-low", type=tuple[float, ...], default=(), help=words)
    parser.add_argument("--action-high", type=tuple[float, ...], default=(), help="of each action, what becomes 1")
    parsed = parse(parser, arguments)
    from training.data.lerobot.ingest import import_lerobot
    from training.data.lerobot.scale import FIELD

    config = decode(ImportConfig, {item.name: getattr(parsed, item.name) for item in fields(ImportConfig)})
    with ExitStack() as stack:
        progress: Progress | None = None

        def show(done: int, total: int) -> None:
            nonlocal progress
            progress = progress or stack.enter_context(Progress("import", total, "frames"))
            progress.update(done)

        dataset = import_lerobot(Path(parsed.source), Path(parsed.out), config, on_progress=show)
    names, side = dataset.interface, dataset.arrays["pixels"].shape[2]
    print(f"{parsed.out}: {dataset.episodes} episodes, {dataset.steps} steps at {names.control_hz:g} Hz")
    print(f"cameras {', '.join(names.cameras)} of {side} x {side}; actions {', '.join(names.action_names)}")
    if scale := dataset.header.get(FIELD):
        bounds = ", ".join(f"{low:g} to {high:g}" for low, high in zip(scale["low"], scale["high"], strict=True))
        print(f"-1 to 1 of the actions is {bounds} of theirs, as {FIELD} in its header says")
    return 0


def _parser(action: str) -> ArgumentParser:
    parser = plain_parser("data", tasks=False)
    parser.prog, parser.description = f"vla data {action}", ACTIONS[action]
    return parser
