"""What holds for all tests.

One BLAS thread a process: the suite runs in two, and spinning threads of both would fight over two cores.
"""

import os

from hypothesis import HealthCheck, settings

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# No deadlines: on a shared machine a slow second says nothing about the code.
settings.register_profile(
    "kvt", deadline=None, max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("kvt")
