"""The paper's network written once more, from the paper's equations and torch's own attention.

Its parameters are named as in published checkpoints, so that its weights make a file of their layout. It reads one
video at a time, without any padding of frames or words. T frames of h·w places, M clips of k, L words, D width.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Layer(nn.Module):
    """What encoder and decoder layers share: attention with positions in queries and keys, and a feed-forward part."""

    def __init__(self, width: int, heads: int, feed: int, attentions: tuple[str, ...], norms: tuple[str, ...]) -> None:
        super().__init__()
        for name in attentions:
            setattr(self, name, nn.MultiheadAttention(width, heads, batch_first=True))
        for name in norms:
            setattr(self, name, nn.LayerNorm(width))
        self.linear1, self.linear2 = nn.Linear(width, feed), nn.Linear(feed, width)

    def feed(self, x: Tensor) -> Tensor:
        return self.linear2(F.relu(self.linear1(x)))


class EncoderLayer(Layer):
    def __init__(self, width: int, heads: int, feed: int) -> None:
        super().__init__(width, heads, feed, ("self_attn",), ("norm1", "norm2"))

    def forward(self, x: Tensor, position: Tensor, hidden: Tensor | None) -> Tensor:
        x = self.norm1(x + self.self_attn(x + position, x + position, x, key_padding_mask=hidden)[0])
        return self.norm2(x + self.feed(x))


class DecoderLayer(Layer):
    def __init__(self, width: int, heads: int, feed: int) -> None:
        super().__init__(width, heads, feed, ("self_attn", "cross_attn_image"), ("norm1", "norm3", "norm4"))

    def forward(self, q_TD: Tensor, object_TD: Tensor, f_TND: Tensor, position_ND: Tensor, hidden_TN: Tensor) -> Tensor:
        where = (q_TD + object_TD)[None]
        mixed, self.weights = self.self_attn(where, where, q_TD[None])
        q_TD = self.norm1(q_TD + mixed[0])
        keys = f_TND + position_ND
        read, _ = self.cross_attn_image((q_TD + object_TD)[:, None], keys, f_TND, key_padding_mask=hidden_TN)
        q_TD = self.norm3(q_TD + read[:, 0])
        return self.norm4(q_TD + self.feed(q_TD))


def network(*widths: int) -> nn.Module:
    made = nn.Module()
    made.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
    return made


def through(made: nn.Module, x: Tensor) -> Tensor:
    for layer in made.layers[:-1]:
        x = F.relu(layer(x))
    return made.layers[-1](x)


def waves(at: Tensor, width: int) -> Tensor:
    """sin(at / 10000^(2i/width)) in place 2i, its cosine in place 2i + 1."""
    found = torch.zeros(*at.shape, width)
    for i in range(width // 2):
        rate = 10000 ** (2 * i / width)
        found[..., 2 * i], found[..., 2 * i + 1] = torch.sin(at / rate), torch.cos(at / rate)
    return found


class Reference(nn.Module):
    def __init__(
        self, body: nn.Module, text: nn.Module, *, width: int, heads: int, feed: int, depth: int, k: int, fast: str
    ) -> None:
        super().__init__()
        self.width, self.k, self.fast = width, k, fast
        wrapped = nn.Module()
        wrapped.body = body
        self.backbone = nn.ModuleList([wrapped])
        self.input_proj = nn.Conv2d(512, width, 1)
        self.query_embed = nn.Embedding(1, width)
        self.bbox_embed, self.sted_embed = network(width, width, width, 4), network(width, width, 2)
        t = self.transformer = nn.Module()
        t.text_encoder = text
        t.resizer = nn.Module()
        t.resizer.fc = nn.Linear(text.config.hidden_size, width)
        t.resizer.layer_norm = nn.LayerNorm(width, eps=1e-12)
        t.encoder, t.decoder = nn.Module(), nn.Module()
        t.encoder.layers = nn.ModuleList(EncoderLayer(width, heads, feed) for _ in range(depth))
        t.decoder.layers = nn.ModuleList(DecoderLayer(width, heads, feed) for _ in range(depth))
        t.decoder.norm = nn.LayerNorm(width)
        if fast == "published_transformer":
            t.fast_encoder = nn.Module()
            t.fast_encoder.layers = nn.ModuleList([EncoderLayer(width, heads, feed)])
            t.fast_encoder.norm = nn.LayerNorm(width)
        elif fast != "none":
            t.fast_encoder = nn.Linear(width, width)
        if fast in ("linear", "noslow", "pooled", "published_transformer"):
            t.fast_residual = nn.Linear(width, width)
        t.time_embed = nn.Module()
        t.time_embed.register_buffer("te", waves(torch.arange(200), width)[:, None])

    def features(self, frames_TCHW: Tensor) -> Tensor:
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        b = self.backbone[0].body
        x = (frames_TCHW / 255 - mean[:, None, None]) / std[:, None, None]
        x = b.maxpool(F.relu(b.bn1(b.conv1(x))))
        return self.input_proj(b.layer4(b.layer3(b.layer2(b.layer1(x)))))

    def forward(
        self, frames_TCHW: Tensor, words_L: Tensor, shown_HW: Tensor
    ) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
        """F `(T, h·w + L, D)`, boxes `(T, 4)`, and by layer queries `(T, D)` and start and end logits `(T, 2)`."""
        t, count = self.transformer, len(frames_TCHW)
        maps = self.features(frames_TCHW)
        h, w = maps.shape[2:]
        x_TND = maps.flatten(2).transpose(1, 2)
        rows, columns = torch.arange(h) * shown_HW.shape[0] // h, torch.arange(w) * shown_HW.shape[1] // w
        shown_hw = shown_HW[rows][:, columns]
        text = t.resizer.layer_norm(t.resizer.fc(t.text_encoder(words_L[None]).last_hidden_state))
        y, x = shown_hw.cumsum(0).float(), shown_hw.cumsum(1).float()
        y, x = y / (y[-1:] + 1e-6), x / (x[:, -1:] + 1e-6)
        place = torch.cat([waves(2 * math.pi * y, self.width // 2), waves(2 * math.pi * x, self.width // 2)], -1)
        position_ND = torch.cat([place.flatten(0, 1), torch.zeros(len(words_L), self.width)])
        hidden_N = torch.cat([~shown_hw.flatten(), torch.zeros(len(words_L), dtype=torch.bool)])
        f_TND = []
        for first in range(0, count, self.k):
            slow = torch.cat([x_TND[first], text[0]])[None]
            if self.fast != "noslow":
                for layer in t.encoder.layers:
                    slow = layer(slow, position_ND, hidden_N[None])
            f_TND += [slow[0]] * min(self.k, count - first)
        f_TND = torch.stack(f_TND)
        h_v, h_s = f_TND[:, : h * w], f_TND[:, h * w :]
        times_TD = t.time_embed.te[:count, 0]
        if self.fast in ("linear", "gated", "noslow"):
            f_v = t.fast_encoder(x_TND)
        elif self.fast == "pooled":
            f_v = t.fast_encoder(x_TND[:, shown_hw.flatten()].mean(1, keepdim=True))
        elif self.fast == "published_transformer":
            f_v = x_TND.transpose(0, 1)
            f_v = t.fast_encoder.norm(t.fast_encoder.layers[0](f_v, times_TD, None)).transpose(0, 1)
        if self.fast == "noslow":
            h_v = f_v
        elif self.fast == "gated":
            h_v = h_v + h_v * torch.sigmoid(f_v)
        elif self.fast != "none":
            h_v = h_v + t.fast_residual(h_v + f_v)
        f_TND = torch.cat([h_v, h_s], 1)
        q_TD, object_TD = torch.zeros(count, self.width), self.query_embed.weight + times_TD
        queries = []
        for layer in t.decoder.layers:
            q_TD = layer(q_TD, object_TD, f_TND, position_ND, hidden_N.expand(count, -1))
            queries.append(t.decoder.norm(q_TD))
        boxes = torch.sigmoid(through(self.bbox_embed, queries[-1]))
        return f_TND, boxes, queries, [through(self.sted_embed, q) for q in queries]
