"""Wherever a server repeats a secret, nothing that is kept of its reply holds it."""

import pytest

from kvt_async.contract.secrets import Secrets
from kvt_async.engine.reply.redact import Redactor
from kvt_async.engine.send.sender import Sender
from kvt_async.records import Attempt, Request
from kvt_async.store.columns import rows_of_attempt
from tests.engine.sending import Recorder, request_to
from tests.servers.echoes import FORMS, echoes, traces
from tests.servers.fault_server import FaultServer, Seen, Step, Wire
from tests.worlds import engine_settings

pytestmark = pytest.mark.usefixtures("every_transport")

KEY = "sk-live-0123456789abcdef+/?&"  # with what JSON, URLs and HTML escape
EXPECTS = {"requested": 0.5, "unit": "fraction", "is_full": False, "prompt_tokens": 9, "evidence": None}


def once(data: bytes) -> Step:
    async def step(wire: Wire, request: Seen) -> None:
        await wire.send(data)
        wire.close()

    return step


async def attempts_of(replies: dict[str, bytes], evidence: dict[str, str]) -> dict[str, tuple[Request, Attempt]]:
    """What is kept of each reply."""
    found = {}
    async with FaultServer(*map(once, replies.values())) as server:
        settings = engine_settings(server.base_url, api_key_env="KVT_TEST_KEY")
        async with Sender(settings) as sender:
            for name in replies:
                request = request_to(server.base_url, expects={**EXPECTS, "evidence": evidence})
                outcome = await sender.send(request, Recorder())
                assert outcome.last is not None, name
                found[name] = (request, outcome.last)
    return found


@pytest.mark.parametrize("evidence", [{"usage": "kv.kept_fraction"}, {"header": "X-Kept"}], ids=["usage", "header"])
async def test_no_row_of_a_reply_holds_a_secret_that_the_server_repeats(
    monkeypatch: pytest.MonkeyPatch, evidence: dict[str, str]
) -> None:
    monkeypatch.setenv("KVT_TEST_KEY", KEY)
    kept = await attempts_of(echoes(KEY), evidence)
    for name, (request, attempt) in kept.items():
        rows = "\n".join(str(value) for _, row in rows_of_attempt(request, attempt, "s", "now") for value in row)
        for trace in traces(KEY):
            assert trace.decode() not in rows, (name, rows)
    assert kept["text over deltas"][1].reply is not None  # an answer stays an answer


async def test_the_same_replies_without_a_secret_are_kept_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table itself: what is looked for is there, as far as a reply's field is kept at all."""
    monkeypatch.delenv("KVT_TEST_KEY", raising=False)
    kept = await attempts_of(echoes("plain-words-0123456789"), {"usage": "kv.kept_fraction"})
    shown = [name for name, (_, attempt) in kept.items() if "plain-words-0" in repr(attempt)]
    assert len(shown) > 25, shown


# ------------------------------------------------------------------ evidence


@pytest.mark.parametrize("cut", range(1, len(KEY)))
def test_a_secret_scattered_over_events_is_in_no_evidence(cut: int) -> None:
    redactor = Redactor(Secrets([KEY]))
    stream = f'data: {{"a":[{{"b":"{KEY[:cut]}"}}]}}\n\ndata: {{"a":[{{"b":"{KEY[cut:]}"}}]}}\n\n'
    for last in (False, True):
        shown = redactor.evidence(stream, last=last)
        assert not (KEY[:cut] in shown and KEY[cut:] in shown)


@pytest.mark.parametrize("before", range(170, 205))
@pytest.mark.parametrize("form", ["as it is", "Base64", "percent, every byte"])
def test_evidence_is_masked_before_it_is_cut(before: int, form: str) -> None:
    redactor, spelled = Redactor(Secrets([KEY])), FORMS[form](KEY)
    shown = redactor.evidence("." * before + spelled), redactor.evidence(spelled + "." * before, last=True)
    assert spelled[:10] not in shown[0]
    assert spelled[-10:] not in shown[1]
