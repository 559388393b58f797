"""`python -m kvt_async` is `kvt`."""

from kvt_async.cli import main

if __name__ == "__main__":
    main()
