"""One BLAS thread a process: the suite runs in two, and spinning threads of both would fight over two cores."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
