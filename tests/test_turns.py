"""Threads take turns on a device."""

import threading
import time

import pytest
import torch

from bundle.registration.memory import turn


@pytest.mark.parametrize("at_once", [1, 3])
def test_no_more_than_allowed_at_once_and_as_many_as_allowed(at_once):
    now, most, full = [], [], threading.Barrier(at_once)

    def work():
        with turn(torch.device("cpu"), at_once):
            now.append(1)
            most.append(len(now))
            full.wait(timeout=600)  # only passes while as many as are allowed have their turn
            time.sleep(0.01)
            now.pop()

    threads = [threading.Thread(target=work) for _ in range(2 * at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=600)
    assert len(most) == 2 * at_once
    assert max(most) == at_once


def test_devices_do_not_wait_for_each_other_and_an_error_ends_a_turn():
    with turn(torch.device("cpu"), 1), turn(torch.device("meta"), 1):
        pass
    with pytest.raises(KeyError), turn(torch.device("cpu"), 1):
        raise KeyError
    with turn(torch.device("cpu"), 1):
        pass
