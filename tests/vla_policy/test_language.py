import json
import os
import shutil
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from configs.checks import own_settings
from configs.policy import LanguageConfig, PretrainedTextConfig
from vla_policy.checkpoint import Checkpoint, Purpose, load_checkpoint, save_checkpoint
from vla_policy.contract import Shapes, fake_batch
from vla_policy.exchange import LanguageEncoder, LanguageSetup
from vla_policy.language import LANGUAGES
from vla_policy.language.pretrained import PretrainedText
from vla_policy.policy import VLAPolicy
from vla_policy.tokenizer import PretrainedTokenizer

FAMILIES = ["bert", "clip_text", "clip", "gpt2", "roberta", "t5"]
TEXTS = ["follow the red ball", "track the small blue cube"]
WIDTH, WORDS = 16, 20


def built(folder: Path, *, frozen: bool = True, vocabulary: int = 30, words: int = WORDS) -> PretrainedText:
    torch.manual_seed(0)
    setup = LanguageSetup(vocabulary=vocabulary, max_words=words, width=WIDTH, attention_heads=2)
    return PretrainedText(PretrainedTextConfig(source=str(folder), frozen=frozen), setup)


def made(config: LanguageConfig) -> LanguageEncoder:
    torch.manual_seed(0)
    setup = LanguageSetup(vocabulary=30, max_words=WORDS, width=WIDTH, attention_heads=2)
    return LANGUAGES[config.name](own_settings(config), setup)


def read(folder: Path, texts: list[str] = TEXTS) -> tuple[Tensor, Tensor]:
    ids, mask = PretrainedTokenizer.read(str(folder), WORDS).encode(texts)
    return torch.from_numpy(ids), torch.from_numpy(mask)


def own_states(family: str, folder: Path, ids: Tensor, mask: Tensor) -> Tensor:
    """What the library's own class for this family makes of the tokens."""
    from transformers import BertModel, CLIPTextModel, GPT2Model, RobertaModel, T5EncoderModel

    kind = {
        "bert": BertModel,
        "clip_text": CLIPTextModel,
        "clip": CLIPTextModel,
        "gpt2": GPT2Model,
        "roberta": RobertaModel,
        "t5": T5EncoderModel,
    }
    model = kind[family].from_pretrained(folder).eval()
    with torch.no_grad():
        states: Tensor = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
    return states


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("frozen", [True, False])
def test_tokens_are_the_projected_states_of_the_librarys_model(
    text_models: dict[str, Path], family: str, frozen: bool
) -> None:
    folder = text_models[family]
    model, (ids, mask) = built(folder, frozen=frozen).eval(), read(folder)
    tokens = model(ids, mask)
    assert tokens.tokens.shape == (2, WORDS, WIDTH)
    assert torch.equal(tokens.mask, mask)
    expected = model.norm(model.project(own_states(family, folder, ids, mask)))
    torch.testing.assert_close(tokens.tokens[mask], expected[mask])


def test_frozen_and_fine_tuned_start_alike(text_models: dict[str, Path], family: str) -> None:
    ids, mask = read(text_models[family])
    frozen, tuned = (built(text_models[family], frozen=f).eval() for f in (True, False))
    torch.testing.assert_close(frozen(ids, mask).tokens[mask], tuned(ids, mask).tokens[mask])


class TestFrozen:
    def test_only_the_projection_learns(self, text_models: dict[str, Path], family: str) -> None:
        model = built(text_models[family]).train()
        assert not model.model.training
        trained = {name for name, p in model.named_parameters() if p.requires_grad}
        assert trained == {"project.weight", "project.bias", "norm.weight", "norm.bias"}
        model(*read(text_models[family])).tokens.sin().sum().backward()
        assert all(p.grad is not None for p in model.parameters() if p.requires_grad)

    def test_an_instruction_is_read_once(self, text_models: dict[str, Path]) -> None:
        model, (ids, mask) = built(text_models["bert"]), read(text_models["bert"])
        calls: list[int] = []
        model.model.register_forward_hook(lambda *_: calls.append(1))
        first = model(ids[[0, 1, 0, 0]], mask[[0, 1, 0, 0]]).tokens
        assert len(calls) == 2
        again = model(ids[[1, 0]], mask[[1, 0]]).tokens
        assert len(calls) == 2
        assert torch.equal(again, first[[1, 0]])

    def test_what_it_remembers_is_left_alone_by_the_compiler(
        self, text_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(PretrainedText, "_recall", PretrainedText._recall)  # to be restored
        PretrainedText.stay_uncompiled()
        text = built(text_models["bert"])
        tokens, mask = read(text_models["bert"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the compiler's own
            compiled = torch.compile(text, backend="eager")
            first, again = compiled(tokens, mask), compiled(tokens, mask)
        assert torch.equal(first.tokens, text(tokens, mask).tokens)
        assert torch.equal(first.tokens, again.tokens)

    def test_its_numbers_do_not_depend_on_the_company(self, text_models: dict[str, Path], family: str) -> None:
        ids, mask = read(text_models[family], [*TEXTS, "follow the large green cube"])
        together, alone = built(text_models[family])._recall(ids, mask), built(text_models[family])
        for i in (2, 0, 1):
            assert torch.equal(alone._recall(ids[i : i + 1], mask[i : i + 1])[0], together[i])

    def test_padding_neither_changes_the_numbers_nor_asks_again(self, text_models: dict[str, Path]) -> None:
        model, (ids, mask) = built(text_models["bert"]), read(text_models["bert"])
        long = model._recall(ids, mask)
        known = model._known
        used = int(mask.sum(1).max())
        assert torch.equal(model._recall(ids[:, :used], mask[:, :used]), long[:, :used])
        assert (long[:, used:] == 0).all()
        assert known is not None
        assert model._known is known
        assert len(known[0]) == 2

    def test_new_weights_are_read_anew(self, text_models: dict[str, Path]) -> None:
        model, (ids, mask) = built(text_models["bert"]), read(text_models["bert"])
        before = model(ids, mask).tokens
        weights = {name: value + 0.1 * torch.randn_like(value) for name, value in model.state_dict().items()}
        model.load_state_dict(weights)
        fresh = built(text_models["bert"])
        fresh.load_state_dict(weights)
        after = model(ids, mask).tokens
        assert (after - before).abs().max() > 1e-3
        assert torch.equal(after, fresh(ids, mask).tokens)

    def test_moving_it_empties_the_memory(self, text_models: dict[str, Path]) -> None:
        model, (ids, mask) = built(text_models["bert"]), read(text_models["bert"])
        model(ids, mask)
        assert model._known is not None
        model.double()
        assert model._known is None
        assert model(ids, mask).tokens.dtype == torch.float64

    def test_the_memory_has_an_end(self, text_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("vla_policy.language.pretrained.CACHED", 3)
        model = built(text_models["bert"])
        ids = torch.arange(4, 12)[:, None].expand(-1, WORDS)
        mask = torch.ones_like(ids, dtype=torch.bool)
        expected = built(text_models["bert"])
        one_by_one = [expected._recall(ids[i : i + 1], mask[i : i + 1]) for i in range(len(ids))]
        for chosen in ([0, 1], [1, 2], [1, 3, 4], [4, 5], list(range(8))):  # within the limit, beyond it, far beyond it
            assert torch.equal(model._recall(ids[chosen], mask[chosen]), torch.cat([one_by_one[i] for i in chosen]))
            assert model._known is not None
            assert len(model._known[0]) <= max(3, len(chosen))

    def test_half_precision_training_remembers_full_precision(self, text_models: dict[str, Path]) -> None:
        model, (ids, mask) = built(text_models["bert"]), read(text_models["bert"])
        exact = model(ids, mask).tokens
        rough = built(text_models["bert"])
        with torch.autocast("cpu", torch.bfloat16):
            rough(ids, mask)
        assert torch.equal(rough(ids, mask).tokens, exact)


class TestFineTuned:
    def test_gradients_reach_every_parameter_that_is_trained(self, text_models: dict[str, Path], family: str) -> None:
        model = built(text_models[family], frozen=False).train()
        assert model.model.training
        model(*read(text_models[family])).tokens.sin().sum().backward()
        trained = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        assert len(trained) > 10
        assert [name for name, grad in trained.items() if grad is None] == []

    def test_a_pooler_that_nothing_reads_is_left_out(self, text_models: dict[str, Path]) -> None:
        model = built(text_models["bert"], frozen=False)
        left = {name for name, p in model.named_parameters() if not p.requires_grad}
        assert left == {"model.pooler.dense.weight", "model.pooler.dense.bias"}


@pytest.fixture
def saved(text_models: dict[str, Path], family: str, tmp_path: Path, make_policy: Callable[..., VLAPolicy]) -> Path:
    """A checkpoint whose text model's own folder is gone."""
    source = tmp_path / "source"
    shutil.copytree(text_models[family], source)
    base = make_policy()
    config = LanguageConfig(name="pretrained", pretrained=PretrainedTextConfig(source=str(source)), max_words=WORDS)
    tokenizer = PretrainedTokenizer.make(config, TEXTS)
    torch.manual_seed(3)
    policy = VLAPolicy(replace(base.config, language=config), replace(base.shapes, vocabulary=tokenizer.size))
    policy.normaliser.set_statistics(torch.zeros(4), torch.ones(4))
    purpose = Purpose(tasks=("track",), action_names=("dx", "dy", "dz"), agent_pos_names=tuple("abcd"))
    save_checkpoint(Checkpoint(policy, tokenizer, purpose, {}), tmp_path / "checkpoint")
    batch = fake_batch(replace(base.shapes, vocabulary=30), 2)
    torch.save([batch.observation.frames, policy.eval().act(batch.observation).action], tmp_path / "expected.pt")
    shutil.rmtree(source)
    return tmp_path / "checkpoint"


class TestCheckpoint:
    def test_it_is_self_contained(
        self, saved: Path, monkeypatch: pytest.MonkeyPatch, shapes: Shapes, tmp_path: Path
    ) -> None:
        def refuse(*_: object) -> None:
            raise AssertionError("loading a checkpoint went to the network")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        assert sorted(p.name for p in (saved / "language").iterdir()) == ["config.json", "tokenizer.json"]
        assert not (saved / "tokenizer.json").exists()
        loaded = load_checkpoint(saved)
        batch = fake_batch(replace(shapes, vocabulary=30), 2)
        _, expected = torch.load(tmp_path / "expected.pt", weights_only=True)
        assert torch.equal(loaded.policy.act(batch.observation).action, expected)
        ids, mask = loaded.tokenizer.encode(TEXTS)
        assert ids.shape == mask.shape == (2, WORDS)
        assert loaded.policy.config.language.pretrained.source == str(
            tmp_path / "source"
        )  # where it came from stays known

    def test_saved_again_it_is_the_same(self, saved: Path, tmp_path: Path) -> None:
        save_checkpoint(load_checkpoint(saved), tmp_path / "again")
        for file in ("model.safetensors", "config.json", "language/tokenizer.json"):
            assert (tmp_path / "again" / file).read_bytes() == (saved / file).read_bytes(), file
        assert torch.equal(
            load_checkpoint(tmp_path / "again").policy.language.project.weight,  # type: ignore[union-attr]
            load_checkpoint(saved).policy.language.project.weight,  # type: ignore[union-attr]
        )

    @pytest.mark.parametrize("file", ["language/config.json", "language/tokenizer.json"])
    def test_a_missing_file_is_named(self, saved: Path, file: str) -> None:
        (saved / file).unlink()
        with pytest.raises(ValueError, match=f"{saved / file}: missing, so the checkpoint is damaged"):
            load_checkpoint(saved)

    def test_a_damaged_description_is_named(self, saved: Path) -> None:
        (saved / "language" / "config.json").write_text("{")
        with pytest.raises(ValueError, match=f"{saved}.*{saved / 'language'}") as caught:
            load_checkpoint(saved)
        assert "\n" not in str(caught.value)


class TestRefused:
    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no such folder; give a local folder or a hub name"):
            built(tmp_path / "none")

    def test_a_hub_name_that_is_not_in_the_cache_when_offline(self) -> None:
        code = (
            "from configs.policy import PretrainedTextConfig\nfrom vla_policy.exchange import LanguageSetup\n"
            "from vla_policy.language.pretrained import PretrainedText\n"
            "setup = LanguageSetup(vocabulary=9, max_words=9, width=8, attention_heads=2)\n"
            "try: PretrainedText(PretrainedTextConfig(source='nobody/nothing'), setup)\n"
            "except ValueError as error: print(error)\n"
        )
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.count("\n") == 1
        assert done.stdout.startswith("language.pretrained.source 'nobody/nothing': no usable model")
        assert "give a local folder or the name of a cached" in done.stdout
        assert done.stderr == ""

    def edited(self, source: Path, target: Path, **changes: object) -> Path:
        shutil.copytree(source, target)
        config = json.loads((target / "config.json").read_text())
        (target / "config.json").write_text(json.dumps({**config, **changes}))
        return target

    def test_a_model_of_unknown_kind(self, text_models: dict[str, Path], tmp_path: Path) -> None:
        folder = self.edited(text_models["bert"], tmp_path / "odd", model_type="no_such_model")
        with pytest.raises(ValueError, match="no usable model") as caught:
            built(folder)
        assert "\n" not in str(caught.value)

    def test_a_model_that_brings_its_own_code(self, text_models: dict[str, Path], tmp_path: Path) -> None:
        folder = self.edited(
            text_models["bert"],
            tmp_path / "code",
            model_type="own",
            auto_map={"AutoConfig": "own.Config", "AutoModel": "own.Model"},
        )
        (folder / "own.py").write_text("raise SystemExit('its code was run')")
        with pytest.raises(ValueError, match="no usable model"):
            built(folder)

    @pytest.mark.usefixtures("text_models")  # which makes transformers importable
    def test_a_model_of_pictures(self, tmp_path: Path) -> None:
        from transformers import ViTConfig, ViTModel

        config = ViTConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=16, patch_size=8
        )
        ViTModel(config).save_pretrained(tmp_path / "vit")
        with pytest.raises(ValueError, match="ViTModel does not turn 20 tokens into hidden states"):
            built(tmp_path / "vit")

    def test_pickled_weights(self, text_models: dict[str, Path], tmp_path: Path) -> None:
        folder = tmp_path / "pickled"
        shutil.copytree(text_models["bert"], folder)
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        with pytest.raises(ValueError, match=r"no usable model.*safetensors"):
            built(folder)

    def test_damaged_weights(self, text_models: dict[str, Path], tmp_path: Path) -> None:
        folder = tmp_path / "damaged"
        shutil.copytree(text_models["bert"], folder)
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=f"{folder}.*no usable model"):
            built(folder)

    def test_weights_that_lack_a_layer(self, text_models: dict[str, Path], tmp_path: Path) -> None:
        folder = tmp_path / "lacking"
        shutil.copytree(text_models["bert"], folder)
        weights = load_file(folder / "model.safetensors")
        kept = {name: value for name, value in weights.items() if "layer.1.output.dense.weight" not in name}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ValueError, match=r"its weights have no 'encoder.layer.1.output.dense.weight'"):
            built(folder)

    def test_weights_that_lack_only_the_pooler_are_welcome(self, text_models: dict[str, Path], tmp_path: Path) -> None:
        folder = tmp_path / "headless"
        shutil.copytree(text_models["bert"], folder)
        weights = load_file(folder / "model.safetensors")
        kept = {name: value for name, value in weights.items() if "pooler" not in name}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
        built(folder)

    def test_a_tokenizer_of_another_model(self, text_models: dict[str, Path]) -> None:
        with pytest.raises(ValueError, match="its tokenizer knows 5000 tokens, its model only"):
            built(text_models["bert"], vocabulary=5000)

    def test_more_words_than_it_has_places_for(self, text_models: dict[str, Path]) -> None:
        with pytest.raises(ValueError, match=r"BertModel does not turn 60 tokens .* or a smaller language.max_words"):
            built(text_models["bert"], words=60)


@pytest.mark.parametrize("name", sorted(LANGUAGES))
def test_words_that_are_masked_change_nothing(name: str, text_models: dict[str, Path]) -> None:
    text = PretrainedTextConfig(source=str(text_models["bert"]) if name == "pretrained" else "")
    model = made(LanguageConfig(name=name, pretrained=text, max_words=WORDS)).eval()  # type: ignore[arg-type]
    ids, mask = torch.randint(2, 30, (2, 6)), torch.arange(6) < torch.tensor([[3], [6]])
    before, after = model(ids, mask), model(torch.where(mask, ids, 7), mask)
    assert torch.equal(after.mask, before.mask)
    torch.testing.assert_close(after.tokens[after.mask], before.tokens[before.mask])


def test_a_bag_of_words_knows_no_order() -> None:
    ids = torch.tensor([[3, 4, 5], [5, 4, 3], [5, 4, 6]])
    tokens = made(LanguageConfig(name="bag_of_words"))(ids, torch.ones_like(ids, dtype=torch.bool)).tokens
    torch.testing.assert_close(tokens[0], tokens[1])
    assert (tokens[2] - tokens[1]).abs().max() > 1e-2


def test_the_order_of_words_matters_to_the_transformer() -> None:
    ids = torch.tensor([[3, 4, 5], [5, 4, 3]])
    tokens = made(LanguageConfig())(ids, torch.ones_like(ids, dtype=torch.bool)).tokens
    assert (tokens[0].flip(0) - tokens[1]).abs().max() > 1e-2
