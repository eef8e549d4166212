"""A vision-language-action policy: encoders, fusion, grounding, action heads. PyTorch only; no simulator."""
