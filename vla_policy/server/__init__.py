"""A policy behind a WebSocket, as openpi's clients speak to one; docs/serving.md describes every message.

`wire` encodes and decodes, `session` is one client's episode, `batcher` decides for all of them, `serving` holds the
connections, `client` is the other side.
"""
