"""Parts of scripts/train_reference.py: the network, its training rows, its measured accuracy, its folder."""
