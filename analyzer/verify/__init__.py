"""`kvt verify`: facts and derived rows, made again and compared."""
