"""One episode by an exported policy, which needs onnxruntime, tokenizers and numpy. (The world it acts in is ours.)

vla export default --task track --out runs/export
python docs/examples/run_onnx.py runs/export track
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

from envs.task import make_task

folder, task = Path(sys.argv[1]), sys.argv[2]
told = json.loads((folder / "export.json").read_text())
session = onnxruntime.InferenceSession(folder / told["graphs"]["window"]["file"])
env = make_task(task, cameras=tuple(told["cameras"]), size=told["size"])
seen, info = env.reset(seed=0)
words = Tokenizer.from_file(str(folder / told["tokenizer"]["file"])).encode(seen["instruction"]).ids
tokens = np.full((1, told["tokenizer"]["max_words"]), told["tokenizer"]["pad"], np.int64)
tokens[0, : len(words)] = words[: tokens.shape[1]]
text = {"tokens": tokens, "token_mask": np.arange(tokens.shape[1])[None] < len(words)}
pictures: list[np.ndarray] = []
over = False
while not over:
    step = len(pictures)
    pictures.append(np.stack([seen["pixels"][camera] for camera in told["cameras"]]))
    if step % told["execute"] == 0:
        steps = [max(step - age, 0) for age in told["frame_ages"]]
        frames = np.stack([pictures[i] for i in steps])
        (chunk,), *_ = session.run(["actions"], {"frames": frames[None], "agent_pos": seen["agent_pos"][None], **text})
    seen, _, terminated, truncated, info = env.step(chunk[step % told["execute"]])
    over = terminated or truncated
print(f"{seen['instruction']!r}: {'success' if info['is_success'] else 'failure'} after {len(pictures)} steps")
