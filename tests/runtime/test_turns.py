"""Turns of threads with networks and with the global random generators."""

import os
import random
import threading

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from torch import nn

from sklearn_lpntk._runtime.turns import exclusive, in_turn, random_state_kept, seeded
from sklearn_lpntk._skorch.nets import fit_net


class Parallel:
    """Threads that say how far they are, and wait until they may go on."""

    def __init__(self, context):
        self.entered, self.may_leave = threading.Event(), threading.Event()

        def work():
            with context():
                self.entered.set()
                assert self.may_leave.wait(10)

        self.thread = threading.Thread(target=work, daemon=True)
        self.thread.start()

    def leave(self):
        self.may_leave.set()
        self.thread.join(10)
        assert not self.thread.is_alive()


def is_held_up(thread):
    return not thread.entered.wait(0.1)


def test_many_keep_the_generators_at_once():
    one, two = Parallel(random_state_kept), Parallel(random_state_kept)
    assert one.entered.wait(10)
    assert two.entered.wait(10)
    one.leave()
    two.leave()


@pytest.mark.parametrize("other", [random_state_kept, lambda: seeded(1)], ids=["kept", "seeded"])
def test_who_seeds_them_is_alone(other):
    one = Parallel(lambda: seeded(0))
    assert one.entered.wait(10)
    two = Parallel(other)
    assert is_held_up(two)
    one.leave()
    assert two.entered.wait(10)
    two.leave()


def test_who_seeds_them_waits_for_those_that_keep_them():
    one = Parallel(random_state_kept)
    assert one.entered.wait(10)
    two = Parallel(lambda: seeded(0))
    assert is_held_up(two)
    one.leave()
    assert two.entered.wait(10)
    two.leave()


def test_a_thread_may_do_both_and_an_error_ends_its_turn():
    net = nn.Linear(2, 2)
    with pytest.raises(KeyError), random_state_kept(), seeded(0), seeded(1), in_turn(net):
        raise KeyError
    other = Parallel(lambda: seeded(0))
    assert other.entered.wait(10)
    other.leave()
    other = Parallel(lambda: exclusive(net))
    assert other.entered.wait(10)
    other.leave()


def test_two_that_would_wait_for_each_other_are_told():
    errors, both = [], threading.Barrier(2)

    def work():
        try:
            with random_state_kept():
                both.wait(10)
                with seeded(0):
                    pass
        except RuntimeError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert len(errors) == 1
    assert "Train it before" in str(errors[0])


def test_networks_that_share_a_part_take_turns():
    shared = nn.Linear(2, 2)
    one = Parallel(lambda: exclusive(nn.Sequential(shared)))
    assert one.entered.wait(10)
    two = Parallel(lambda: exclusive(nn.Sequential(nn.Tanh(), shared)))
    three = Parallel(lambda: exclusive(nn.Linear(2, 2)))
    assert three.entered.wait(10)
    assert is_held_up(two)
    for thread in (one, two, three):
        thread.leave()


def test_the_generators_come_back():
    def draws():
        return torch.rand(1).item(), np.random.rand(), random.random()

    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    expected = draws()
    torch.manual_seed(3), np.random.seed(3), random.seed(3)
    with seeded(5):
        first = draws()
    with random_state_kept():
        draws()
    assert draws() == expected
    with seeded(5):
        assert draws() == first


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_waits_for_nobody():
    net = nn.Linear(2, 2)
    others = [Parallel(lambda: seeded(0))]
    others[0].entered.wait(10)
    others.append(Parallel(lambda: exclusive(net)))
    others[1].entered.wait(10)
    child = os.fork()
    if child == 0:
        with seeded(0), in_turn(net):
            os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    for other in others:
        other.leave()


def test_a_net_is_cloned_while_nobody_has_borrowed_its_module():
    net = NeuralNetClassifier(
        nn.Linear(4, 3), criterion=nn.CrossEntropyLoss, max_epochs=1, train_split=None, verbose=0
    )
    X, y = np.random.rand(6, 4).astype(np.float32), np.arange(6) % 3
    borrower, done = Parallel(lambda: exclusive(net.module)), threading.Event()
    assert borrower.entered.wait(10)

    def train():
        fit_net(net, X, y, 0)
        done.set()

    trainer = threading.Thread(target=train, daemon=True)
    trainer.start()
    assert not done.wait(0.2)
    borrower.leave()
    assert done.wait(10)
