"""Train a model: ``python train.py +experiment=transformer [key=value ...]``.

The same as ``dragoman train``. Sweeps: ``-m seed=1,2,3``.
"""

import sys

from dragoman.launch import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
