"""Batches made ahead: the same ones, in order, errors in their turn."""

import threading

import pytest
import torch

from engine.feed import ahead, feed
from engine.losses import count_items

CPU = torch.device("cpu")


def test_the_next_batch_is_made_while_the_last_one_is_used():
    made, second = [], threading.Event()

    def batches():
        for number in range(3):
            made.append(number)
            if number == 1:
                second.set()
            yield {"number": number}

    coming = ahead(batches(), 1)
    assert next(coming) == {"number": 0}
    assert second.wait(timeout=10)  # nobody has asked for it yet
    assert [batch["number"] for batch in coming] == [1, 2]
    assert made == [0, 1, 2]


def test_an_error_while_a_batch_is_made_reaches_who_asks_for_it():
    def batches():
        yield {"number": 0}
        raise ValueError("row 7 is broken")

    coming = ahead(batches(), 1)
    next(coming)
    with pytest.raises(ValueError, match="row 7"):
        next(coming)


def test_a_reader_that_stops_early_leaves_no_thread():
    coming = ahead(iter([{"number": number} for number in range(5)]), 1)
    next(coming)
    coming.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("feed")]


def test_no_more_batches_are_made_than_there_is_room_for():
    made, asked = [], threading.Semaphore(0)

    def batches():
        for number in range(50):
            made.append(number)
            asked.release()
            yield number

    coming = ahead(batches(), 3)
    assert next(coming) == 0
    for _ in range(5):  # one used, three waiting, one in hand
        assert asked.acquire(timeout=10)
    assert not asked.acquire(timeout=0.3)
    assert made == list(range(5))
    coming.close()


def test_items_are_counted_while_the_labels_are_on_the_host():
    labels = torch.tensor([[1, -100, 2], [-100, -100, 3]])
    (batch,) = feed([{"inputs": {}, "labels": labels}], CPU, count_items)
    assert batch["items"] == 3
    assert count_items({"items": 3, "labels": None}) == 3  # the labels are not looked at again
