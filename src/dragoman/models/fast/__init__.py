"""What makes a CPU quick, behind one door: the textbook files import it from here alone.

| name | instead of | spares |
|---|---|---|
| ``drop``, ``activate_and_drop`` | ``F.dropout`` | slow draws; passes over the tensor |
| ``Linear``, ``affine`` | ``nn.Linear``, ``F.linear`` | slow sums for biases, slow shapes |
| ``scaled_dot_attention``, ``hiding`` | softmax(scores) values | passes over short rows |
| ``pack``, ``Packing`` | ``attention.Grid`` | arithmetic on padding |
| ``sweep``, ``Unrolled``, ``Step`` | ``nn.LSTM``, ``nn.LSTMCell`` | a gradient of W each step |
| ``guesser``, ``aligned``, ``product`` | the output layer | slow shapes; all logits at once |

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
