import time
from pathlib import Path

import numpy as np
import pytest

from configs.policy import LanguageConfig, PretrainedTextConfig
from vla_policy.language import LANGUAGES
from vla_policy.tokenizer import PAD, TOKENIZERS, UNKNOWN, PretrainedTokenizer, Reading, TextTokenizer, WordTokenizer

TEXTS = ["follow the red ball", "Track the small blue cube", "follow the red cube, please"]
WORDS = 24
FAMILIES = ["bert", "clip", "gpt2", "t5"]


def test_every_language_has_a_tokenizer() -> None:
    assert set(TOKENIZERS) == set(LANGUAGES)


@pytest.fixture(params=["words", *FAMILIES])
def tokenizer(request: pytest.FixtureRequest, text_models: dict[str, Path]) -> TextTokenizer:
    if request.param == "words":
        return WordTokenizer.make(LanguageConfig(max_words=WORDS), TEXTS)
    config = LanguageConfig(
        name="pretrained", pretrained=PretrainedTextConfig(source=str(text_models[request.param])), max_words=WORDS
    )
    return PretrainedTokenizer.make(config, TEXTS)


class TestAll:
    def test_ids_fit_the_vocabulary_and_the_mask_marks_the_words(self, tokenizer: TextTokenizer) -> None:
        ids, mask = tokenizer.encode(TEXTS)
        assert ids.shape == mask.shape == (3, WORDS)
        assert ids.dtype == np.int64
        assert mask.dtype == np.bool_
        assert ids.min() >= 0
        assert ids.max() < tokenizer.size
        lengths = mask.sum(1)
        assert (lengths >= 4).all()
        assert (mask == (np.arange(WORDS) < lengths[:, None])).all()
        assert (ids[~mask] == PAD).all()

    def test_different_texts_have_different_ids(self, tokenizer: TextTokenizer) -> None:
        ids, _ = tokenizer.encode(TEXTS)
        assert len({row.tobytes() for row in ids}) == len(TEXTS)

    def test_a_text_has_the_same_ids_in_any_company(self, tokenizer: TextTokenizer) -> None:
        together, _ = tokenizer.encode(TEXTS)
        for i, text in enumerate(TEXTS):
            assert (tokenizer.encode([text])[0] == together[i]).all()

    def test_long_texts_are_cut(self, tokenizer: TextTokenizer) -> None:
        ids, mask = tokenizer.encode(["follow the red ball " * 20])
        assert ids.shape == (1, WORDS)
        assert mask.all()

    @pytest.mark.parametrize("text", ["", "   ", "\n"])
    def test_a_text_without_words_is_refused(self, tokenizer: TextTokenizer, text: str) -> None:
        with pytest.raises(ValueError, match="has no words"):
            tokenizer.encode(["fine", text])

    def test_saved_and_loaded_it_gives_the_same(self, tokenizer: TextTokenizer, tmp_path: Path) -> None:
        tokenizer.save(tmp_path)
        assert (tmp_path / tokenizer.FILES[0]).is_file()
        loaded = type(tokenizer).load(tmp_path, WORDS)
        assert loaded.size == tokenizer.size
        for a, b in zip(loaded.encode([*TEXTS, TEXTS[0] * 9]), tokenizer.encode([*TEXTS, TEXTS[0] * 9]), strict=True):
            assert (a == b).all()
        loaded.save(tmp_path / "again")
        file = tokenizer.FILES[0]
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / file).read_bytes()

    @pytest.mark.parametrize("content", [b"", b"{}", b"not json", b"\xff\xfe"])
    def test_a_damaged_file_is_named(self, tokenizer: TextTokenizer, tmp_path: Path, content: bytes) -> None:
        file = tmp_path / tokenizer.FILES[0]
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(content)
        with pytest.raises(ValueError, match=f"{file}: not a readable tokenizer"):
            type(tokenizer).load(tmp_path, WORDS)


class TestReading:
    def test_all_is_well(self, tokenizer: TextTokenizer) -> None:
        reading = tokenizer.reading("follow the red ball")
        assert reading == Reading(kept=("follow", "the", "red", "ball"), dropped=(), unknown=())
        assert reading.notice == ""

    def test_words_beyond_the_limit_are_dropped(self, tokenizer: TextTokenizer) -> None:
        text = "follow the red ball " * 20 + "then stop"
        reading = tokenizer.reading(text)
        assert [*reading.kept, *reading.dropped] == text.split()
        assert 0 < len(reading.kept) <= WORDS
        assert reading.dropped[-2:] == ("then", "stop")
        assert reading.notice.startswith(f"the policy reads only the first {len(reading.kept)} words and drops ")
        # The words that are kept are all that is read: what comes after them changes nothing.
        tail = " ".join(reversed(reading.dropped))
        assert len(tokenizer.reading(f"{' '.join(reading.kept)} {tail}").kept) >= len(reading.kept) - 1

    @pytest.mark.parametrize("text", ["", "  \n"])
    def test_a_text_without_words_is_refused(self, tokenizer: TextTokenizer, text: str) -> None:
        with pytest.raises(ValueError, match="has no words"):
            tokenizer.reading(text)

    @pytest.mark.parametrize("text", ["x" * 10_000, "ball " * 2_000, "!" * 10_000, "é跟随 🤖" * 2_000, ". " * 5_000])
    def test_a_very_long_text_is_read_quickly_and_said_shortly(self, tokenizer: TextTokenizer, text: str) -> None:
        began = time.perf_counter()
        reading = tokenizer.reading(text)
        assert time.perf_counter() - began < 1
        assert len(reading.notice) < 300
        assert "\n" not in reading.notice

    def test_it_agrees_with_what_is_encoded(self, tokenizer: TextTokenizer) -> None:
        """One more word makes a difference unless words are dropped already."""
        for text in ("follow the red ball", "follow the mauve ball", "follow the red ball " * 9):
            same = (tokenizer.encode([text])[0] == tokenizer.encode([f"{text} stop"])[0]).all()
            assert bool(tokenizer.reading(text).dropped) is bool(same)

    def test_unknown_words_are_named_once_and_in_order(self) -> None:
        reading = WordTokenizer.train(TEXTS, WORDS).reading("Follow the MAUVE ball, not the teal or mauve MAUVE ball")
        assert reading.unknown == ("MAUVE", "not", "teal", "or", "mauve")
        assert reading.notice == "the policy does not know 'MAUVE', 'not', 'teal' and 2 more words"

    def test_both_are_one_sentence(self) -> None:
        reading = WordTokenizer.train(TEXTS, 4).reading("follow the mauve ball slowly")
        assert reading.dropped == ("slowly",)
        assert reading.notice == (
            "the policy does not know 'mauve', and reads only the first 4 words and drops 'slowly'"
        )

    def test_a_word_that_is_dropped_is_not_called_unknown(self) -> None:
        assert WordTokenizer.train(TEXTS, 4).reading("follow the red ball slowly").unknown == ()

    def test_a_word_that_is_cut_in_its_middle_is_dropped(self, text_models: dict[str, Path]) -> None:
        tokenizer = PretrainedTokenizer.read(str(text_models["gpt2"]), 3)
        assert len(tokenizer.pieces("xyzzy")) == 3  # letter by letter
        assert tokenizer.reading("xyzzy ball") == Reading(kept=(), dropped=("xyzzy", "ball"), unknown=())

    @pytest.mark.parametrize(("family", "unknown"), [("bert", ("ж",)), ("t5", ("ж",)), ("gpt2", ()), ("clip", ())])
    def test_what_a_pretrained_tokenizer_does_not_know(
        self, text_models: dict[str, Path], family: str, unknown: tuple[str, ...]
    ) -> None:
        reading = PretrainedTokenizer.read(str(text_models[family]), WORDS).reading("follow the ж ball")
        assert reading.unknown == unknown
        assert reading.kept == ("follow", "the", "ж", "ball")


class TestWords:
    def test_words_are_lower_cased_and_unknown_ones_marked(self) -> None:
        tokenizer = WordTokenizer.train(TEXTS, WORDS)
        assert (tokenizer.encode(["FOLLOW the Red ball"])[0] == tokenizer.encode(["follow the red ball"])[0]).all()
        ids, mask = tokenizer.encode(["follow the purple ball"])
        assert (ids[0, :4] == UNKNOWN).tolist() == [False, False, True, False]
        assert mask.sum() == 4  # an unknown word is a word

    def test_no_word_is_padding(self) -> None:
        tokenizer = WordTokenizer.train(TEXTS, WORDS)
        assert (tokenizer.encode(TEXTS)[0] == PAD).sum() == (~tokenizer.encode(TEXTS)[1]).sum()

    def test_the_order_of_the_texts_does_not_matter(self) -> None:
        straight, reversed_ = WordTokenizer.train(TEXTS, WORDS), WordTokenizer.train(TEXTS[::-1] * 3, WORDS)
        assert (straight.encode(TEXTS)[0] == reversed_.encode(TEXTS)[0]).all()

    def test_size_counts_the_words_and_both_special_ones(self) -> None:
        assert WordTokenizer.train(["a b", "b c"], WORDS).size == 5


class TestPretrained:
    def test_special_tokens_frame_the_words_even_of_a_long_text(self, text_models: dict[str, Path]) -> None:
        tokenizer = PretrainedTokenizer.read(str(text_models["bert"]), WORDS)
        ids, mask = tokenizer.encode(["follow the red ball", "follow the red ball " * 9])
        for row, real in zip(ids, mask, strict=True):
            assert row[0] == 2  # [CLS]
            assert row[real][-1] == 3  # [SEP]

    def test_no_word_is_unknown_to_it(self) -> None:
        assert PretrainedTokenizer.unknown is None

    def test_too_few_words_for_the_special_tokens_are_refused(self, text_models: dict[str, Path]) -> None:
        with pytest.raises(ValueError, match="max_words 2 must exceed the 2 special tokens"):
            PretrainedTokenizer.read(str(text_models["bert"]), 2)

    def test_a_missing_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=f"language.pretrained.source '{tmp_path / 'none'}': no such folder"):
            PretrainedTokenizer.read(str(tmp_path / "none"), WORDS)

    def test_a_folder_without_a_tokenizer_is_named(self, tmp_path: Path, text_models: dict[str, Path]) -> None:
        (tmp_path / "config.json").write_bytes((text_models["bert"] / "config.json").read_bytes())
        with pytest.raises(ValueError, match=f"language.pretrained.source '{tmp_path}': no usable tokenizer") as caught:
            PretrainedTokenizer.read(str(tmp_path), WORDS)
        assert "\n" not in str(caught.value)
