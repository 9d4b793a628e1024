"""Makes `python -m keras_lenet` the same as `keras-lenet`."""

import sys

from keras_lenet.cli import main

if __name__ == "__main__":
    sys.exit(main())
