"""Fixtures that several folders share: small datasets without rendering, text models without a hub, foreign tasks."""

from __future__ import annotations

import contextlib
import gc
import importlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if TYPE_CHECKING:
    from envs.tabletop.env import TabletopEnv
    from training.data.episodes import Dataset

pytest_plugins = ["tests.small_policies"]

# Of the networks here all are tiny: threads would wait for each other most of the time. Commands inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

OURS = ("configs", "envs", "vla_policy", "training", "eval")
SIZE = 32  # pixels a side of the small datasets
PROPRIOCEPTION = 3
OBJECTS = 3  # of which the last has no words
PLAN_STEPS = 8
COLOURS = {"red": 0, "green": 1, "blue": 2}
TEXTS = [
    f"{verb} the {size} {colour} {shape}"
    for verb in ("follow", "track")
    for size in ("small", "large")
    for colour in COLOURS
    for shape in ("ball", "cube")
]


def pytest_collection_finish() -> None:
    """What is loaded by now stays: the garbage collector, which some tests call, need not look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def quick_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a policy costs, measured in few calls."""
    from eval import acting, cost

    def few(act: Callable[[], Any], *, calls: int) -> list[float]:
        return acting.seconds_per_call(act, calls=min(calls, 3))

    monkeypatch.setattr(cost, "seconds_per_call", few)


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What workers do, and the commands of a comparison's rows, in this process: nothing has to be loaded again."""
    from envs.workers import Pulse
    from eval.compare import run as compare
    from vla_policy.cli import main

    def run(_: Any, command: list[str], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log.txt").open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            code = main(command)
        if code:
            raise compare._RowError((folder / "log.txt").read_text().splitlines()[-1].removeprefix("vla: "))

    def work(jobs: Any, prepare: Any, setup: Any, **_: Any) -> Iterator[tuple[Any, Any]]:
        handle = prepare(Pulse(multiprocessing), setup)
        while jobs:
            job = jobs.popleft()
            yield job, handle(job)

    monkeypatch.setattr("envs.cores.usable_cores", lambda: 1)  # small networks lose by sharing them
    monkeypatch.setattr(compare._Running, "run", run)
    monkeypatch.setattr("eval.evaluate.run_jobs", work)
    monkeypatch.setattr("training.shards.run_jobs", work)


@pytest.fixture
def make_env() -> Iterator[Callable[..., TabletopEnv]]:
    """Makes environments by task name, without Gymnasium's wrappers, and closes them after the test."""
    from envs.tabletop.specs import SPECS, make

    made: list[Any] = []

    def make_one(task: str, **kwargs: Any) -> Any:
        _, kind = SPECS[task]
        made.append(make(kind, **kwargs))
        return made[-1]

    yield make_one
    for env in made:
        env.close()


@pytest.fixture
def forget_tasks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tasks that a test makes known, and the modules that they are in, are forgotten after it."""
    import gymnasium

    from envs import task, task_modules

    ids, modules = set(gymnasium.registry), set(sys.modules)
    monkeypatch.setattr(task, "_REGISTRY", dict(task._REGISTRY))
    monkeypatch.setenv(task.MODULES, "")
    task_modules._import_once.cache_clear()
    task_modules.load_entry_points.cache_clear()
    yield
    for added in set(gymnasium.registry) - ids:
        del gymnasium.registry[added]
    for name in [m for m in set(sys.modules) - modules if getattr(sys.modules[m], "__file__", None)]:
        if not Path(str(sys.modules[name].__file__)).is_relative_to(sys.prefix) and name.split(".")[0] not in OURS:
            del sys.modules[name]
    task_modules._import_once.cache_clear()
    task_modules.load_entry_points.cache_clear()


@pytest.fixture
def foreign(forget_tasks: None, tmp_path: Path) -> Path:
    """The module with somebody else's tasks, in a folder outside the repository, not loaded yet."""
    copy = tmp_path / "foreign_tasks.py"
    copy.write_text((Path(__file__).parent / "foreign.py").read_text())
    return copy


@pytest.fixture
def write_small(tmp_path: Path) -> Callable[..., Dataset]:
    """Writes a dataset in which two squares drift over a grey picture, and actions point at the one that is meant.

    Keywords it does not know are fields of the header.
    """

    def write(
        name: str = "small",
        *,
        lengths: tuple[int, ...] = (12, 9, 15, 7),
        cameras: tuple[str, ...] = ("front",),
        actions: tuple[str, ...] = ("dx", "dy"),
        seed: int = 0,
        task: str = "track",
        size: int = SIZE,
        **header: Any,
    ) -> Dataset:
        from training.data.episodes import open_dataset
        from training.data.writer import write_dataset

        rng = np.random.default_rng(seed)
        episodes = [_episode(rng, i, n, cameras, actions, size) for i, n in enumerate(lengths)]
        full = {
            "task": task,
            "cameras": list(cameras),
            "action_names": list(actions),
            "agent_pos_names": [f"joint_{i}" for i in range(PROPRIOCEPTION)],
            "control_hz": 20,
            **header,
        }
        write_dataset(tmp_path / name, episodes, full)
        return open_dataset(tmp_path / name)

    return write


def _episode(
    rng: np.random.Generator, index: int, n: int, cameras: tuple[str, ...], actions: tuple[str, ...], size: int
) -> Any:
    from training.data.episodes import Episode

    side = size // 4
    colours = rng.permutation(list(COLOURS))[: OBJECTS - 1]
    texts: list[str | None] = [str(rng.choice([text for text in TEXTS if colour in text])) for colour in colours]
    pixels = np.full((n, len(cameras), size, size, 3), 90, dtype=np.uint8)
    boxes = np.zeros((n, len(cameras), OBJECTS, 4), dtype=np.float32)
    action = np.zeros((n, OBJECTS, PLAN_STEPS, len(actions)), dtype=np.float32)
    for i, colour in enumerate(colours):
        start, speed = rng.integers(0, size - side, 2), rng.integers(-1, 2, 2)
        corner = np.clip(start + speed * np.arange(n)[:, None], 0, size - side)  # (n, 2), x and y
        for step, (x, y) in enumerate(corner):
            pixels[step, :, y : y + side, x : x + side, COLOURS[colour]] = 250
        centre = (corner + side / 2) / size
        boxes[:, :, i] = np.concatenate([centre, np.full((n, 2), side / size)], axis=1)[:, None]
        later = np.minimum(np.arange(n)[:, None] + np.arange(PLAN_STEPS), n - 1)
        action[:, i, :, :2] = (centre * 2 - 1)[later]
    pixels += np.arange(len(cameras), dtype=np.uint8)[:, None, None, None]  # so that cameras can be told apart
    visible = np.ones((n, len(cameras), OBJECTS), dtype=bool)
    visible[n // 2, :, 0] = False
    visible[:, :, len(colours) :] = False
    target = int(rng.integers(len(colours)))
    return Episode(
        seed=index,
        instructions=(*texts, None),
        target=target,
        success=True,
        pixels=pixels,
        agent_pos=(rng.normal(size=(n, PROPRIOCEPTION)) * [1, 10, 0] + [0, 5, 2]).astype(np.float32),
        action=action,
        executed=action[:, target, 0],
        boxes=boxes,
        visible=visible,
        events=np.array([(n // 3 + i, n - 1) for i in range(OBJECTS)]),
    )


@pytest.fixture(scope="session")
def text_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of small text models with random weights, each with a tokenizer of its family's kind."""
    importlib.import_module("vla_policy.torchvision_shim")  # before transformers
    import torch
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import (
        BertConfig,
        BertModel,
        CLIPConfig,
        CLIPModel,
        CLIPTextConfig,
        CLIPTextModel,
        GPT2Config,
        GPT2Model,
        PreTrainedTokenizerFast,
        RobertaConfig,
        RobertaModel,
        T5Config,
        T5Model,
    )
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("text_models")

    wordpiece = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    wordpiece.normalizer = normalizers.BertNormalizer(lowercase=True)
    wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    wordpiece.train_from_iterator(
        TEXTS, trainers.WordPieceTrainer(vocab_size=90, special_tokens=special, show_progress=False)
    )
    wordpiece.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )

    def byte_level(ends: list[str]) -> Tokenizer:
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=ends,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        made.train_from_iterator(TEXTS, trainer)
        return made

    pairs = byte_level(["<|endoftext|>"])
    framed = byte_level(["<|startoftext|>", "<|endoftext|>"])
    framed.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>", special_tokens=[("<|startoftext|>", 0), ("<|endoftext|>", 1)]
    )
    # The padding's number is not 0, and positions are counted from behind it.
    roberta_pairs = byte_level(["<s>", "<pad>", "</s>"])
    roberta_pairs.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    pieces = Tokenizer(models.Unigram())
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    pieces.train_from_iterator(
        TEXTS,
        trainers.UnigramTrainer(
            vocab_size=80, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
        ),
    )
    pieces.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])

    clip_text = CLIPTextConfig(
        vocab_size=framed.get_vocab_size(),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
        bos_token_id=0,
        eos_token_id=1,
    )
    clip = CLIPConfig(
        text_config=clip_text.to_dict(),
        vision_config={
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "image_size": 16,
            "patch_size": 8,
        },
    )
    bert = BertConfig(
        vocab_size=wordpiece.get_vocab_size(),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=40,
    )
    gpt2 = GPT2Config(
        vocab_size=pairs.get_vocab_size(),
        n_embd=24,
        n_layer=2,
        n_head=2,
        n_positions=40,
        bos_token_id=0,
        eos_token_id=0,
    )
    roberta = RobertaConfig(
        vocab_size=roberta_pairs.get_vocab_size(),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=42,
    )
    t5 = T5Config(vocab_size=96, d_model=24, d_kv=12, d_ff=32, num_layers=2, num_heads=2)
    made: dict[str, tuple[Any, Tokenizer]] = {
        "bert": (BertModel(bert), wordpiece),
        "clip_text": (CLIPTextModel(clip_text), framed),
        "clip": (CLIPModel(clip), framed),
        "gpt2": (GPT2Model(gpt2), pairs),
        "roberta": (RobertaModel(roberta), roberta_pairs),
        "t5": (T5Model(t5), pieces),
    }
    for name, (model, tokenizer) in made.items():
        model.save_pretrained(folder / name)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder / name)
    return {name: folder / name for name in made}
