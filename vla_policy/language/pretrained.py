"""A pretrained text model from transformers, frozen or fine-tuned, projected to the policy's width.

B batch, L text tokens, H the model's width, D the policy's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from configs.policy import PretrainedTextConfig
from vla_policy.exchange import LanguageEncoder, LanguageSetup
from vla_policy.pretrained_source import one_line, read_source
from vla_policy.tokens import LanguageTokens

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

FOLDER = "language"  # in a checkpoint: the model's own description
CACHED = 4096  # instructions whose states are kept; when there are more, it begins anew


class PretrainedText(LanguageEncoder):
    """The last hidden states of a text model: an encoder, a decoder, or the text side of one with pictures (CLIP).

    A new policy reads the model's weights from `PretrainedTextConfig.source`. A policy that is loaded needs neither
    that folder nor a network: the checkpoint describes the model's structure, and holds its weights with the others.
    A frozen model runs once for each instruction; its states are then kept.
    """

    def __init__(self, config: PretrainedTextConfig, setup: LanguageSetup) -> None:
        super().__init__()
        self.frozen = config.frozen
        if setup.saved is None:
            self.description, whole, missing = read_source(config.source, "model", _read_pretrained)
        else:
            self.description, whole, missing = (
                *read_source(str(setup.saved / FOLDER), "description", _read_description),
                [],
            )
        self.model = _text_side(whole)
        hidden, unused = _examine(self.model, config, setup.max_words)
        needed = {id(p) for p in self.model.parameters()} - {id(p) for p in unused}
        lacking = [name for name, p in whole.named_parameters() if name in missing and id(p) in needed]
        if lacking:
            raise ValueError(f"language.pretrained.source {config.source!r}: its weights have no {lacking[0]!r}")
        rows = len(self.model.get_input_embeddings().get_parameter("weight"))
        if setup.vocabulary > rows:
            raise ValueError(
                f"language.pretrained.source {config.source!r}: its tokenizer knows {setup.vocabulary} tokens, "
                f"its model only {rows}; they do not belong together"
            )
        # Parameters that the hidden states do not depend on, such as a pooler, would never get a gradient.
        for parameter in self.model.parameters() if self.frozen else unused:
            parameter.requires_grad_(False)
        self.project = nn.Linear(hidden, setup.width)
        self.layers = nn.ModuleList()
        self.norm = nn.LayerNorm(setup.width, eps=config.norm_epsilon)
        self.drop = nn.Dropout(config.dropout)
        self.max_words = setup.max_words
        self._forget()
        self.register_load_state_dict_post_hook(_forget)
        self.train()

    def describe(self, folder: Path) -> None:
        """Add the model's description to a checkpoint's folder."""
        self.description.save_pretrained(folder / FOLDER)

    def embed(self, tokens_BL: Tensor, mask_BL: Tensor) -> LanguageTokens:
        if self.frozen:
            hidden = self._recall(tokens_BL, mask_BL)
        else:
            hidden = self.model(input_ids=tokens_BL, attention_mask=mask_BL.long()).last_hidden_state
        return LanguageTokens(tokens=self.project(hidden), mask=mask_BL)

    def finish(self, text: LanguageTokens) -> LanguageTokens:
        return LanguageTokens(tokens=self.drop(self.norm(text.tokens)), mask=text.mask)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.frozen:
            self.model.eval()
        return self

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        self._forget()  # it lies on the old device
        return super()._apply(fn, recurse)

    def _forget(self) -> None:
        """Forget the kept instructions: their tokens, with -1 for padding `(K, max_words)`, and their states
        `(K, max_words, H)`, zero at the padding.
        """
        self._known: tuple[Tensor, Tensor] | None = None

    @classmethod
    def stay_uncompiled(cls) -> None:
        """Keep `torch.compile` from what a frozen model remembers: whether an instruction is known differs from call to
        call. Called by who compiles; as a decorator it would load the compiler, 1.5 s, into every process.
        """
        cls._recall = torch.compiler.disable(cls._recall)  # type: ignore[method-assign]

    def _recall(self, tokens_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Hidden states `(B, L, H)`, zero at the padding."""
        length = tokens_BL.shape[1]
        wanted = F.pad(torch.where(mask_BL, tokens_BL, -1), (0, self.max_words - length), value=-1)
        different, which = torch.unique(wanted, dim=0, return_inverse=True)
        read = None if self._known is None else (different[:, None] == self._known[0]).all(-1)
        if read is None or not read.any(1).all():
            self._read(different if read is None else different[~read.any(1)], different)
            assert self._known is not None
            read = (different[:, None] == self._known[0]).all(-1)
        assert self._known is not None
        return self._known[1][read.int().argmax(1)][which, :length]

    def _read(self, new: Tensor, wanted: Tensor) -> None:
        """Add the states of new instructions, each read on its own, so that its numbers depend on no other and on no
        padding. All but the wanted ones are forgotten if they become too many.
        """
        if self._known is not None and len(self._known[0]) + len(new) > CACHED:
            self._known, new = None, wanted
        states = torch.stack([self._state_of(row[row >= 0]) for row in new])
        parts = [(new, states)] if self._known is None else [self._known, (new, states)]
        keys, values = zip(*parts, strict=True)
        self._known = torch.cat(keys), torch.cat(values)

    @torch.no_grad()
    def _state_of(self, tokens_L: Tensor) -> Tensor:
        """Of one instruction, `(max_words, H)`."""
        tokens = tokens_L[None]
        with torch.autocast(tokens.device.type, enabled=False):
            output = self.model(input_ids=tokens, attention_mask=torch.ones_like(tokens))
        return F.pad(output.last_hidden_state[0], (0, 0, 0, self.max_words - len(tokens_L)))


def _read_pretrained(source: str) -> tuple[PretrainedConfig, PreTrainedModel, list[str]]:
    """The description, the model, and the names of parameters that the folder has no weights for."""
    from transformers import AutoConfig, AutoModel

    description = AutoConfig.from_pretrained(source, trust_remote_code=False)
    model, found = AutoModel.from_pretrained(
        source,
        config=description,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
    )
    return description, model, sorted(found["missing_keys"])


def _read_description(folder: str) -> tuple[PretrainedConfig, PreTrainedModel]:
    from transformers import AutoConfig, AutoModel

    description = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    return description, AutoModel.from_config(description, trust_remote_code=False, dtype=torch.float32)


def _text_side(whole: PreTrainedModel) -> PreTrainedModel:
    """The part that reads text."""
    side: PreTrainedModel = (
        whole.get_encoder() if whole.config.is_encoder_decoder else getattr(whole, "text_model", whole)
    )
    return side


def _examine(model: PreTrainedModel, config: PretrainedTextConfig, max_words: int) -> tuple[int, list[nn.Parameter]]:
    """Width of the hidden states, and the parameters that they do not depend on; reads the longest text to find out."""
    ids = torch.zeros(1, max_words, dtype=torch.long)
    parameters = list(model.parameters())
    try:
        hidden = model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        gradients = torch.autograd.grad(hidden.sum(), parameters, allow_unused=True)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"language.pretrained.source {config.source!r}: {type(model).__name__} does not turn {max_words} "
            f"tokens into hidden states ({one_line(error)}); give a text model, or a smaller language.max_words"
        ) from None
    unused: list[nn.Parameter] = []
    for parameter, gradient in zip(parameters, gradients, strict=True):
        reached: Tensor | None = gradient  # torch's signature leaves the None out
        if reached is None:
            unused.append(parameter)
    return hidden.shape[-1], unused


def _forget(module: PretrainedText, _keys: Any) -> None:
    module._forget()  # new weights, new states
