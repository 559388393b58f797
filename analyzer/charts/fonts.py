"""Pictures take their letters from the fonts that vl-convert carries, and from the machine's only what those lack.

Where both have a font, vl-convert would prefer the machine's. That may be another version, so the same rows would give
other bytes there; and its file is opened anew for each letter, which takes longer than all else of a picture.
"""

import os
import sys
import threading
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

_VARIABLE = "FONTCONFIG_FILE"
_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")  # as fontconfig has them
_NO_FONTS = '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig><dir>{}</dir></fontconfig>\n'
_LOADING = threading.Lock()


def prefer_own_fonts() -> None:
    """To be called before the first picture of a process; changes nothing later.

    Nothing is done on macOS and Windows, where the machine's fonts can't be left out, and where FONTCONFIG_FILE says
    which fonts there are: whoever set it chose them.
    """
    with _LOADING:
        _load()


@cache
def _load() -> None:
    import vl_convert

    if sys.platform in ("darwin", "win32") or _VARIABLE in os.environ:
        return
    with TemporaryDirectory() as empty:
        file = Path(empty) / "fonts.conf"
        file.write_text(_NO_FONTS.format(empty), encoding="utf-8")
        os.environ[_VARIABLE] = str(file)
        try:  # fonts are loaded at the first use of them
            vl_convert.svg_to_png('<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>')
        finally:
            del os.environ[_VARIABLE]
    for folder in map(Path, _FOLDERS):
        if folder.expanduser().is_dir():
            vl_convert.register_font_directory(str(folder.expanduser()))
