"""SIGTERM as a request: taken, asked for, and handed back."""

import os
import signal
import threading

from rmjax.training.preemption import stop_requests


def test_sigterm_is_a_request_as_long_as_the_block_lasts():
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as stop_requested:
        assert not stop_requested(1)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop_requested(2)
    assert signal.getsignal(signal.SIGTERM) is before
    with stop_requests() as stop_requested:
        assert not stop_requested(3)


def test_in_another_thread_nobody_asks():
    answers = []

    def ask():
        with stop_requests() as stop_requested:
            answers.append(stop_requested(1))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert answers == [False]
    assert signal.getsignal(signal.SIGTERM) is before
