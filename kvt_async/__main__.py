"""`python -m kvt_async` is `kvt`."""

import sys


def main() -> None:
    """Entry point of the console script. Loading takes a moment, and Ctrl-C may come in it."""
    try:
        from kvt_async.cli import main as cli

        cli()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
