"""`python -m analyzer` runs the analyzer's verbs without the runner's."""

from analyzer.cli import main

if __name__ == "__main__":
    main()
