"""The time of day, under the name that `run` and `bench` know it by."""

from kvt_async.clock import utc_now

__all__ = ["utc_now"]
