# SPDX-License-Identifier: Apache-2.0
import contextlib
import os
import signal

import pytest

from chipfit import interrupts
from chipfit.cli.console import Terminal
from chipfit.runs.journal import Journal


@pytest.fixture
def swallowed():
    """A signal came where somebody catches everything."""
    before = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
    interrupts.watch()
    with contextlib.suppress(BaseException):
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
    yield
    interrupts.watch()
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_swallowed_interrupt_comes_again_with_the_next_event(swallowed, tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    with pytest.raises(KeyboardInterrupt):
        journal.append("step", key="a")
    assert Journal(tmp_path / "journal.jsonl").recall("a") is not None


def test_a_swallowed_interrupt_comes_again_with_the_next_line(swallowed, capsys):
    with pytest.raises(KeyboardInterrupt):
        Terminal().progress("on and on")


def test_without_a_signal_nothing_is_raised():
    interrupts.raise_if_asked()
