"""Action heads: a feature vector → a chunk of actions. One file each."""

from __future__ import annotations

from vla_policy.heads.chunk_l1 import ChunkL1Head

HEADS: dict[str, type[ChunkL1Head]] = {"chunk_l1": ChunkL1Head}
