"""The backbone on every frame, then a long short-term memory over time at every place.

B batch, T frames, n tokens per frame, D width.
"""

from __future__ import annotations

from torch import Tensor, nn

from configs.policy import FrameLSTMConfig
from vla_policy.vision import CoarseTimeEncoder, EncoderSetup


class FrameLSTMEncoder(CoarseTimeEncoder):
    """Hochreiter & Schmidhuber 1997. Each place has a memory of its own, with shared weights: pooling a frame into one
    vector first would lose where objects are.
    """

    def __init__(self, config: FrameLSTMConfig, setup: EncoderSetup) -> None:
        super().__init__(setup)
        width = setup.width
        self.lstm = nn.LSTM(width, width, num_layers=config.layers, batch_first=True)
        # Forget gates begin open (Jozefowicz et al. 2015), or the first frames would be forgotten before training.
        for layer in range(config.layers):
            bias: Tensor = getattr(self.lstm, f"bias_hh_l{layer}")
            nn.init.ones_(bias.data[width : 2 * width])

    def over_time(self, x_BTnD: Tensor) -> Tensor:
        b = x_BTnD.shape[0]
        last: Tensor = self.lstm(x_BTnD.transpose(1, 2).flatten(0, 1))[0][:, -1].unflatten(0, (b, -1))
        return last
