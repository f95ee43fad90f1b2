"""What makes a CPU quick, behind one door: the textbook files import it from here alone.

| name | in place of | what it leaves out |
|---|---|---|
| ``drop``, ``activate_and_drop`` | ``F.dropout`` | draws: 16 bits an element; passes over tensors |
| ``Linear``, ``affine`` | ``nn.Linear``, ``F.linear`` | slow sums for biases; slow shapes of few rows |
| ``scaled_dot_attention``, ``hiding`` | scores, softmax and sum | passes over rows of up to 64 keys |
| ``pack`` | ``attention.Grid`` | arithmetic on padding |
| ``sweep``, ``Unrolled`` | ``nn.LSTM``, ``nn.LSTMCell`` | a gradient of the weights for every step |
| ``guesser``, ``aligned``, ``product`` | the output layer | shapes that processors do badly |

All compute the same numbers, up to rounding. The last three rows change the shape of a computation:
``model.fast = False`` (``train.fast=false``) does without them, so that there is something to
compare with. The others are plain layers with another body and are always used.
"""

from dragoman.models.fast.cells import Step, Unrolled, sweep
from dragoman.models.fast.dropout import activate_and_drop, drop
from dragoman.models.fast.linear import Linear, affine, aligned, guesser, product
from dragoman.models.fast.packing import Packing, pack
from dragoman.models.fast.short import hiding, scaled_dot_attention

__all__ = [
    "Linear",
    "Packing",
    "Step",
    "Unrolled",
    "activate_and_drop",
    "affine",
    "aligned",
    "drop",
    "guesser",
    "hiding",
    "pack",
    "product",
    "scaled_dot_attention",
    "sweep",
]
