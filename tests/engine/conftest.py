"""Fixtures that several files of these tests share."""

import pytest

from tests import worlds


@pytest.fixture(params=["aiohttp", "lean"])
def every_transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The test once per transport: whatever the wire does, both must say the same of it."""
    monkeypatch.setattr(worlds, "TRANSPORT", request.param)
    return str(request.param)
