"""A Ray that goes away ends the command with a word; a slow one does not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from sweeps.watchdog import (
    CONNECT_SECONDS,
    LOOK_SECONDS,
    REFUSALS_ALLOWED,
    SILENCE_ALLOWED,
    Door,
    Question,
    Vigil,
    knock,
)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with closing(socket.create_server(("127.0.0.1", 0))) as made:
        yield made


def door(listener: socket.socket) -> Door:
    host, port = listener.getsockname()
    return host, port


def looks(vigil: Vigil, count: int) -> list[str | None]:
    return [vigil.look() for _ in range(count)]


def test_a_port_without_a_listener_is_told_by_name_after_a_few_looks(listener: socket.socket) -> None:
    where = door(listener)
    vigil = Vigil({"raylet": where}, lambda: True)
    assert looks(vigil, 5) == [None] * 5
    listener.close()
    *before, last = looks(vigil, REFUSALS_ALLOWED)
    assert before == [None] * (REFUSALS_ALLOWED - 1)
    assert last == f"Ray has died: nobody listens where its raylet (127.0.0.1:{where[1]}) was"


def test_a_listener_that_never_accepts_is_open_however_busy_its_process(listener: socket.socket) -> None:
    assert [knock(door(listener)) for _ in range(20)] == ["open"] * 20


def test_one_answer_makes_up_for_any_silence_before(listener: socket.socket) -> None:
    almost = round(SILENCE_ALLOWED / LOOK_SECONDS) - 1
    answers: list[bool | None] = [*[None] * almost, True, *[None] * almost]
    vigil = Vigil({"GCS": door(listener)}, lambda: answers.pop(0))
    assert looks(vigil, len(answers)) == [None] * (2 * almost + 1)
    answers.append(None)
    assert str(vigil.look()).startswith("Ray has not answered for 50 s: its GCS (127.0.0.1:")


@pytest.mark.parametrize(
    ("seconds", "count", "said"),
    [(CONNECT_SECONDS, 13, "52 s"), (0.0, 25, "50 s"), (3600.0, 13, "52 s")],
    ids=["on a network that is mute", "on one that tells at once", "to a process that was stopped"],
)
def test_a_look_at_a_door_that_is_mute_counts_for_the_time_it_takes(
    seconds: float, count: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    def silent(_: Door) -> str:
        clock[0] += seconds
        return "silent"

    monkeypatch.setattr("sweeps.watchdog.knock", silent)
    monkeypatch.setattr("sweeps.watchdog.time.monotonic", lambda: clock[0])
    vigil = Vigil({"GCS": ("10.0.0.1", 6379)}, lambda: None)
    *before, last = looks(vigil, count)
    assert before == [None] * (count - 1)
    assert last == f"Ray has not answered for {said}: its GCS (10.0.0.1:6379)"


def test_a_node_that_ray_has_given_up_is_told_at_once(listener: socket.socket) -> None:
    assert Vigil({"GCS": door(listener)}, lambda: False).look() == "Ray has given this node up"


def test_a_question_that_blocks_is_asked_once_and_blocks_nobody() -> None:
    asked, go_on = [], threading.Event()

    def ask() -> bool:
        asked.append(1)
        return go_on.wait(60)

    question = Question(ask)
    assert question() is True  # nothing was asked before
    assert [question() for _ in range(3)] == [None] * 3
    assert len(asked) == 1
    go_on.set()
    question.close()
    assert question() is True


def test_an_error_is_no_answer() -> None:
    def ask() -> bool:
        raise ConnectionError("not now")

    question = Question(ask)
    question()
    question.close()
    assert question() is None
    question.close()
