"""The command `kvt view`. What it runs is loaded when it is called."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def view(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[DIR...]", help="Run folders, or folders of them; default: runs.", show_default=False),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 0,
    open_browser: Annotated[
        bool | None, typer.Option("--open/--no-open", help="Open a browser; default: where there is a screen.")
    ] = None,
) -> None:
    """Look at runs in a browser: live progress, verdicts and charts, every answer. Nothing is written.

    Example: kvt view runs

    Example: kvt view last-week/runs this-week/runs --no-open
    """
    import os
    import sys

    from kvt_async.contract.settings import Settings
    from viewer.pages.view_server import serve_view

    if open_browser is None:
        open_browser = sys.stdout.isatty() and (sys.platform == "darwin" or bool(os.environ.get("DISPLAY")))
    chosen = folders or [Path(Settings.model_construct().output.runs_dir)]
    serve_view(chosen, host=host, port=port, open_browser=open_browser)
