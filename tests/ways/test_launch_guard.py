"""The guard of a launched server: whatever dies and however children try to leave, nothing runs on."""

import base64
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from kvt_async.contract.secrets import Secrets
from kvt_async.ways.launch_guard import SECRETS_VARIABLE, pass_on

SECRET = "sk-live-0123456789abcdef"
GUARD = [sys.executable, "-m", "kvt_async.ways.launch_guard"]
STRAYS = """
import os, signal, subprocess, sys, time
for grandchild in ([], ["leave"]):  # one stays in the group, one leads a session of its own
    subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(300)",
                      sys.argv[1]], start_new_session=bool(grandchild))
print("up", flush=True)
ENDING
"""
DEADLINE_S = 30.0


def guard(marker: str, code: str, grace_s: float = 0.2) -> subprocess.Popen[str]:
    """A guard, child of this process, whose server runs `code` and has said that it is up."""
    command = [sys.executable, "-c", code, marker]
    one = subprocess.Popen([*GUARD, str(os.getpid()), str(grace_s), *command], stdout=subprocess.PIPE, text=True)
    assert one.stdout is not None
    assert one.stdout.readline() == "up\n"
    return one


def running(marker: str) -> list[str]:
    """Command lines of processes with `marker` among their words, zombies left out."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode().split("\0")
        except OSError:  # it has just ended
            continue
        if marker in words:
            found.append(" ".join(words))
    return found


def until_none(marker: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while running(marker) and time.monotonic() < deadline:
        time.sleep(0.02)  # polling other processes, bounded by the deadline
    assert running(marker) == []


def test_a_server_that_ends_by_itself_takes_its_children_with_it_and_its_code_is_the_guards(tmp_path: Path) -> None:
    one = guard(str(tmp_path), STRAYS.replace("ENDING", "sys.exit(7)"))
    assert one.wait(DEADLINE_S) == 7
    assert running(str(tmp_path)) == []
    one.communicate()


def test_a_guard_told_to_stop_ends_a_server_that_ignores_term_after_its_grace(tmp_path: Path) -> None:
    one = guard(str(tmp_path), STRAYS.replace("ENDING", "signal.signal(15, signal.SIG_IGN); time.sleep(300)"))
    one.terminate()
    assert one.wait(DEADLINE_S) == 256 - signal.SIGKILL
    assert running(str(tmp_path)) == []
    one.communicate()


def test_a_server_gets_its_grace_to_end_by_itself(tmp_path: Path) -> None:
    farewell = tmp_path / "farewell"
    leave = f"signal.signal(15, lambda *_: (open({str(farewell)!r}, 'w').close(), os._exit(5)))"
    one = guard(
        str(tmp_path), f"import os, signal, time; {leave}; print('up', flush=True); time.sleep(300)", grace_s=60
    )
    one.terminate()
    assert one.wait(DEADLINE_S) == 5
    assert farewell.exists()
    one.communicate()


def test_a_guard_that_is_killed_takes_the_server_with_it(tmp_path: Path) -> None:
    one = guard(str(tmp_path), "import time; print('up', flush=True); time.sleep(300)")
    one.kill()
    one.wait()
    until_none(str(tmp_path))
    one.communicate()


def test_a_command_that_is_not_there_is_127(tmp_path: Path) -> None:
    done = subprocess.run([*GUARD, str(os.getpid()), "1", str(tmp_path / "none")], capture_output=True, text=True,
                          timeout=DEADLINE_S, check=False)  # fmt: skip
    assert done.returncode == 127
    assert "can't be started" in done.stderr


def test_when_the_parent_dies_the_server_and_its_children_do_too(tmp_path: Path) -> None:
    """The parent here is a process between us and the guard: it is killed the hard way."""
    server = STRAYS.replace("ENDING", "time.sleep(300)")
    code = (
        "import os, subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-m', 'kvt_async.ways.launch_guard', str(os.getpid()), '0.2', "
        "sys.executable, '-c', sys.argv[1], sys.argv[2]])\ntime.sleep(300)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, server, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "up\n"
    assert len(running(str(tmp_path))) == 5  # parent, guard, server, two children
    parent.kill()
    parent.wait()
    until_none(str(tmp_path))
    parent.stdout.close()


# ------------------------------------------------------------------ what a server prints


def test_a_secret_that_a_server_prints_is_masked_in_its_log_and_the_list_of_secrets_is_not_the_servers(
    tmp_path: Path,
) -> None:
    code = (
        "import os, sys; print('key', sys.argv[1]); print('err', sys.argv[1], file=sys.stderr); "
        f"print({SECRETS_VARIABLE!r} in os.environ); sys.stdout.write('no end ' + sys.argv[1])"
    )
    env = {**os.environ, SECRETS_VARIABLE: f'["{SECRET}"]'}
    log = tmp_path / "server.log"
    with log.open("ab") as out:
        done = subprocess.run([*GUARD, str(os.getpid()), "1", sys.executable, "-uc", code, SECRET], stdout=out,
                              stderr=out, env=env, timeout=DEADLINE_S, check=False)  # fmt: skip
    assert done.returncode == 0
    assert log.read_text() == "key ***\nerr ***\nFalse\nno end ***"


def test_a_secret_that_comes_in_pieces_is_masked_and_what_stands_before_it_is_not_held_back(tmp_path: Path) -> None:
    source, end = os.pipe()
    log = tmp_path / "log"
    with log.open("wb") as sink:
        thread = threading.Thread(target=pass_on, args=(source, sink.fileno(), Secrets([SECRET])))
        thread.start()
        os.write(end, f"ready: {SECRET[:9]}".encode())
        deadline = time.monotonic() + DEADLINE_S
        while log.read_bytes() != b"ready: " and time.monotonic() < deadline:
            time.sleep(0.02)  # polling a file, bounded by the deadline
        assert log.read_bytes() == b"ready: "
        os.write(
            end, f"{SECRET[9:]} \xff\n{base64.b64encode(SECRET.encode()).decode()}\n{SECRET[:12]}".encode("latin-1")
        )
        os.close(end)
        thread.join(DEADLINE_S)
    os.close(source)
    assert log.read_bytes() == b"ready: *** \xff\n***\n***"
