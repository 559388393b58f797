"""Set before torch and huggingface_hub are first imported."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # sums in one order on every machine
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # what a press would look up on the hub is missing, at once
