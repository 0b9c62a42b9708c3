"""When a signal is a request to stop, and when it is a second one."""

import os
import signal

import pytest

from grpo_cli.launch import requests as requests_module
from grpo_cli.launch.requests import SAME_REQUEST_S, Requests, exit_status
from grpo_cli.stop import REQUESTS


@pytest.fixture
def clock(monkeypatch):
    """The time that Requests sees, in seconds; a test can set it."""
    now = [0.0]
    monkeypatch.setattr(requests_module.time, "monotonic", lambda: now[0])
    return now


def test_signals_within_a_second_are_one_request(clock):
    with Requests(REQUESTS) as requests:
        assert requests.first is None
        os.kill(os.getpid(), signal.SIGTERM)
        clock[0] = SAME_REQUEST_S / 2
        os.kill(os.getpid(), signal.SIGTERM)  # as `timeout` sends it, to the process and to its group
        assert requests.first is signal.SIGTERM
        assert not requests.is_repeated
        clock[0] = SAME_REQUEST_S + 0.1
        os.kill(os.getpid(), signal.SIGINT)
        assert requests.is_repeated
        assert requests.first is signal.SIGTERM


def test_a_signal_that_was_ignored_before_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Requests(REQUESTS) as requests:
            os.kill(os.getpid(), signal.SIGHUP)
            assert requests.first is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_handlers_are_restored():
    before = signal.getsignal(signal.SIGINT)
    with Requests(REQUESTS):
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGUSR1, 143)],
)
def test_the_exit_status_after_a_request_is_the_shells_for_that_signal(number, status):
    assert exit_status(number) == status
