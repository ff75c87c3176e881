"""Fingerprints: what code leads to counts, in every process alike; what has no value is refused."""

import ctypes
import enum
import functools
import importlib
import io
import itertools
import logging
import math
import os
import re
import subprocess
import sys
import textwrap
import threading
import types
import weakref
from collections import OrderedDict, defaultdict, deque
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping, LRScheduler
from torch import nn
from torch.nn.utils import parametrizations

from sklearn_lpntk._runtime.fingerprint import NoFingerprintError, fingerprint
from sklearn_lpntk.exceptions import StoreMismatchError
from sklearn_lpntk.kernels import empirical_ntk

from ..nets import TRAPS

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Write modules of the user's; returns the one named, loaded anew."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def load(name, **sources):
        for module, source in sources.items():
            file = tmp_path / f"{module}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(source))
        for module in set(sys.modules) - before:
            if (getattr(sys.modules[module], "__file__", None) or "").startswith(str(tmp_path)):
                del sys.modules[module]
        importlib.invalidate_caches()
        return importlib.import_module(name)

    yield load
    for module in set(sys.modules) - before:
        if (getattr(sys.modules[module], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[module]


# each: what a forward does, with what else it needs; and what then changes in `helper`
HELPER = "import torch\n"
WAYS = {
    "an attribute of a module": ("import helper", "helper.act(x)", "def act(x): return {} * x"),
    "through another function": (
        "import helper",
        "helper.act(x)",
        "def act(x): return inner(x)\ndef inner(x): return {} * x",
    ),
    "through a function's module": (
        "import helper",
        "helper.act(x)",
        "import constants\ndef act(x): return constants.SCALE * x",
    ),
    "a name from a module": ("from helper import act", "act(x)", "def act(x): return {} * x"),
    "a module under another name": ("import helper as h", "h.A * x", "A = {}"),
    "a module of a package": (
        "import parts.sub",
        "parts.sub.act(x)",
        "",
    ),
    "a package's name from it": ("from parts import sub", "sub.act(x)", ""),
    "an import as it runs": ("", "__import__", "def act(x): return {} * x"),
    "an object's attribute": (
        "from helper import CONFIG",
        "CONFIG.scale * x",
        "class Config: pass\nCONFIG = Config()\nCONFIG.scale = {}",
    ),
    "a slot": (
        "from helper import CONFIG",
        "CONFIG.scale * x",
        "class Config:\n  __slots__ = ('scale',)\nCONFIG = Config()\nCONFIG.scale = {}",
    ),
    "a class's attribute": ("from helper import C", "C.scale * x", "class C: scale = {}"),
    "a property of a base": (
        "from helper import C",
        "C().scale * x",
        "class B:\n  @property\n  def scale(self): return {}\nclass C(B): pass",
    ),
    "a module with weights": (
        "from helper import LAYER",
        "LAYER(x)",
        "LAYER = torch.nn.Linear(3, 3)\nwith torch.no_grad(): LAYER.weight.fill_({})",
    ),
    "an object that is called": (
        "from helper import ACT",
        "ACT(x)",
        "class Act:\n  def __call__(self, x): return {} * x\nACT = Act()",
    ),
    "a bound method": (
        "from helper import ACT",
        "ACT(x)",
        "class Act:\n  def __init__(self): self.a = {}\n  def f(self, x): return self.a * x\n"
        "ACT = Act().f",
    ),
    "a partial": (
        "from helper import ACT",
        "ACT(x)",
        "import functools\ndef f(a, x): return a * x\nACT = functools.partial(f, {})",
    ),
    "a partial's function": (
        "from helper import ACT",
        "ACT(x)",
        "import functools\ndef f(a, x): return a * x * {}\nACT = functools.partial(f, 1)",
    ),
    "a decorated function": (
        "from helper import act",
        "act(x)",
        "@torch.no_grad()\ndef act(x): return {} * x",
    ),
    "a decorator of the user's": (
        "from helper import act",
        "act(x)",
        "import functools\ndef d(f):\n  @functools.wraps(f)\n  def w(x): return {} * f(x)\n"
        "  return w\n@d\ndef act(x): return x",
    ),
    "a memoised function": (
        "from helper import act",
        "act(2) * x",
        "import functools\n@functools.lru_cache\ndef act(a): return {} * a",
    ),
    "a closure": (
        "from helper import act",
        "act(x)",
        "def make(a):\n  def act(x): return a * x\n  return act\nact = make({})",
    ),
    "a default": ("from helper import act", "act(x)", "def act(x, a={}): return a * x"),
    "a nested function": (
        "from helper import act",
        "act(x)",
        "def act(x):\n  def inner(x): return helper2(x)\n  return inner(x)\n"
        "def helper2(x): return {} * x",
    ),
    "a function's attribute": (
        "from helper import act",
        "act(x)",
        "def act(x): return act.scale * x\nact.scale = {}",
    ),
    "a table of functions": (
        "from helper import TABLE",
        "TABLE['a'](x)",
        "TABLE = {{'a': lambda x: {} * x}}",
    ),
    "a learnt scaler": (
        "from helper import SCALER",
        "x * SCALER.mean_[0]",
        "from sklearn.preprocessing import StandardScaler\n"
        "SCALER = StandardScaler().fit([[{}], [0]])",
    ),
    "an enum": (
        "from helper import E",
        "E.A.value * x",
        "import enum\nclass E(enum.Enum):\n  A = {}",
    ),
    "a named tuple": (
        "from helper import T",
        "T.a * x",
        "from typing import NamedTuple\nclass N(NamedTuple):\n  a: int = 1\nT = N({})",
    ),
    "a constructor": (
        "from helper import C",
        "C() * x",
        "class C:\n  def __new__(cls): return {}",
    ),
    "a metaclass": (
        "from helper import C",
        "C.scale * x",
        "class M(type):\n  @property\n  def scale(cls): return {}\nclass C(metaclass=M): pass",
    ),
    "an attribute by a string": (
        "import helper",
        "helper.zero(getattr(helper, 'act')(x))",
        "def zero(x): return x\ndef act(x): return {} * x",
    ),
    "a data class": (
        "from helper import D",
        "D.a * x",
        "from dataclasses import dataclass\n@dataclass\nclass C:\n  a: int = 1\nD = C({})",
    ),
    "a dict of the user's own": (
        "from helper import D",
        "D.a * x",
        "class C(dict): pass\nD = C()\nD.a = {}",
    ),
    "a module that is passed on": (
        "import helper\ndef use(m, x): return getattr(m, 'ac' + 't')(x)",
        "use(helper, x)",
        "def act(x): return {} * x",
    ),
    "an autograd function": (
        "from helper import F",
        "F.apply(x)",
        "class F(torch.autograd.Function):\n  @staticmethod\n  def forward(ctx, x): return {} * x",
    ),
}


def own_net(imports, expression):
    if expression == "__import__":
        expression = "helper.act(x)"
        body = f"import helper; return {expression}"
    else:
        body = f"return {expression}"
    return (
        f"import torch\nfrom torch import nn\n{imports}\n"
        "class Net(nn.Module):\n"
        "  def __init__(self):\n    super().__init__(); self.layer = nn.Linear(3, 3)\n"
        f"  def act(self, x):\n    {body}\n"
        "  def forward(self, x): return self.act(self.layer(x))\n"
    )


@pytest.mark.parametrize("way", WAYS)
def test_whatever_code_leads_to_counts(way, package):
    imports, expression, helper = WAYS[way]

    def load(value):
        torch.manual_seed(0)
        package(
            "helper",
            own=own_net(imports, expression),
            helper=HELPER + helper.format(value),
            constants=f"SCALE = {value}",
            **{"parts/__init__": "", "parts/sub": f"def act(x): return {value} * x"},
        )
        return importlib.import_module("own").Net()

    one = fingerprint(load(2))
    assert fingerprint(load(2)) == one
    assert fingerprint(load(3)) != one
    assert fingerprint(load(2)) == one


def test_a_helper_that_is_loaded_again_in_place(package):
    own = package("own", own=own_net("import helper", "helper.act(x)"), helper="def act(x): 0")
    net = own.Net()
    before = fingerprint(net)
    Path(own.helper.__file__).write_text("def act(x): return x")
    importlib.reload(own.helper)
    assert fingerprint(net) != before


def test_what_code_does_not_name_is_another_matter(package):
    """A module may hold what has no value, as long as no one uses it."""

    def load(results):
        helper = (
            f"import threading\nLOCK = threading.Lock()\nRESULTS = {results}\ndef act(x): return x"
        )
        torch.manual_seed(0)
        own = own_net("import helper", "helper.act(x)")
        return package("own", own=own, helper=helper).Net()

    assert fingerprint(load([1])) == fingerprint(load([2]))


def test_a_long_chain_of_functions(package):
    """Longer than the stack is deep, and each link leads to all others."""

    def load(end):
        lines = [f"def f{i}(x): return f{i + 1}(x) + g(x)" for i in range(3000)]
        lines += ["def g(x): return f0(x)", f"def f3000(x): return {end}"]
        return package("chain", chain="\n".join(lines)).f0

    one, other = fingerprint(load(1)), fingerprint(load(2))
    assert one != other


def test_modules_that_import_each_other(package):
    def load(value):
        one = "import b\nX = 1\ndef act(x): return b.act(x)"
        two = f"import a\ndef act(x): return a.X * x * {value}"
        return package("a", a=one, b=two).act

    assert fingerprint(load(1)) == fingerprint(load(1)) != fingerprint(load(2))


# -- what has no value --------------------------------------------------------------------


LOCK = threading.Lock()
CALLED = {"lock": LOCK}


class Locked(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        with CALLED["lock"]:
            return self.layer(x)


NO_VALUES = {
    "lock": LOCK,
    "generator": (i for i in range(3)),
    "file": sys.__stdout__,
    "weak reference": weakref.ref(Locked),
    "ctypes function": ctypes.CDLL(None).abs if os.name == "posix" else LOCK,
    "local": threading.local(),
    "event": threading.Event(),
    "ufunc": np.frompyfunc(lambda a: a, 1, 1),
    "deep inside": [{"a": (1, functools.partial(print, LOCK))}],
}


@pytest.mark.parametrize("kind", NO_VALUES)
def test_what_has_no_value_is_refused(kind):
    with pytest.raises(NoFingerprintError):
        fingerprint(NO_VALUES[kind])
    refers = types.FunctionType(compile("A", "", "eval"), {"A": NO_VALUES[kind], "__name__": "own"})
    with pytest.raises(NoFingerprintError, match=r"^A"):
        fingerprint(refers)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_compiled_code_is_refused():
    with pytest.raises(NoFingerprintError, match="RecursiveScriptModule"):
        fingerprint(nn.Sequential(torch.jit.script(nn.Linear(2, 3))))


def test_a_store_refuses_and_names_it(tmp_path):
    X = torch.rand(6, 4)
    match = r"forward\.CALLED\.lock \(_thread\.lock\)\. Keep that out of what the network refers to"
    with pytest.raises(ValueError, match=match):
        empirical_ntk(Locked(), X, torch.arange(6) % 3, store=tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_store_of_a_changed_helper_is_refused(package, tmp_path):
    X, y = torch.rand(6, 3), torch.arange(6) % 3

    def store(value):
        source = own_net("import helper", "helper.act(x)")
        torch.manual_seed(0)
        net = package("own", own=source, helper=f"def act(x): return {value} * x").Net()
        return empirical_ntk(net, X, y, store=tmp_path / "store").toarray()

    np.testing.assert_array_equal(store(1), store(1))
    with pytest.raises(StoreMismatchError, match="network"):
        store(2)


# -- ordinary values ----------------------------------------------------------------------


class Color(enum.Enum):
    RED = 1


class Delegates:
    """Knows any attribute, or none, in a manner of its own."""

    def __getattr__(self, name):
        raise KeyError(name)


class Plain:
    def __init__(self, value):
        self.value = value


def decayed(step, rate=0.9):
    return rate**step


logger = logging.getLogger(__name__)


def logs(x):
    logger.info("%s", x)
    return math.sqrt(x) + np.mean(x) + torch.relu(x)


def net_of_all():
    torch.manual_seed(0)
    return NeuralNetClassifier(
        nn.Sequential(
            OrderedDict(
                conv=nn.Conv2d(1, 2, 3),
                norm=nn.BatchNorm2d(2),
                act=nn.ReLU(),
                flat=nn.Flatten(),
                out=nn.LazyLinear(3),
            )
        ),
        criterion=nn.CrossEntropyLoss,
        criterion__weight=torch.ones(3),
        optimizer=torch.optim.AdamW,
        iterator_train__generator=torch.Generator().manual_seed(0),
        iterator_train__collate_fn=torch.utils.data.default_collate,
        callbacks=[
            EarlyStopping(patience=2),
            ("schedule", LRScheduler(torch.optim.lr_scheduler.LambdaLR, lr_lambda=decayed)),
        ],
        train_split=None,
        device="cpu",
    )


ORDINARY = {
    "plain": lambda: [None, True, 1, 1.5, 2j, "a", b"b", ..., NotImplemented, range(3), slice(1)],
    "sets": lambda: [{"a", "b", "c", 1, None}, frozenset("xyz"), {Color.RED, math.sqrt}],
    "dicts": lambda: [{1: "a", "b": 2, None: 3}, defaultdict(list, a=[1]), OrderedDict(a=1)],
    "deque": lambda: deque([1, 2], maxlen=3),
    "enum": lambda: [Color.RED, Color],
    "torch": lambda: [torch.float32, torch.device("cpu"), torch.strided, torch.Size([1])],
    "numpy": lambda: [np.float32, np.dtype("f4"), np.float32(1), np.datetime64("2020-01-01")],
    "arrays": lambda: [np.arange(3), np.array(["a", None], dtype=object), np.ma.array([1], mask=1)],
    "tensors": lambda: [torch.ones(2), torch.eye(2).to_sparse(), torch.ones(2).cfloat().conj()],
    "random": lambda: [np.random.default_rng(0), np.random.RandomState(0), torch.Generator()],
    "paths": lambda: [Path("a"), date(2020, 1, 1), re.compile("a"), np.errstate(all="ignore")],
    "builtins": lambda: [math.sqrt, torch.relu, len, np.add, np.mean, str.upper, "a".join],
    "library": lambda: [nn.functional.max_pool2d, torch.ops.aten.relu, np, torch.nn, os.path],
    "functions": lambda: [lambda x: x, functools.partial(max, key=len), decayed, logs],
    "instances": lambda: [
        Plain([1, {2}]),
        types.SimpleNamespace(a=1),
        object(),
        StandardScaler(),
        Delegates(),
    ],
    "count": lambda: itertools.count(3) if sys.version_info < (3, 14) else None,
    "bytes": lambda: io.BytesIO(b"abc"),
    "net": net_of_all,
    "normed": lambda: parametrizations.weight_norm(seeded(nn.Linear)(2, 3)),
    "attention": lambda: seeded(nn.TransformerEncoderLayer)(8, 2, 16, batch_first=True),
    "recurrent": lambda: seeded(nn.LSTM)(3, 4, 2),
}


def seeded(kind):
    torch.manual_seed(0)
    return kind


@pytest.mark.parametrize("kind", ORDINARY)
def test_ordinary_values_have_one(kind):
    assert fingerprint(ORDINARY[kind]()) == fingerprint(ORDINARY[kind]())


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_trap_net_has_one():
    digests = [fingerprint(make()[0]) for make in TRAPS.values()]
    assert len(set(digests)) == len(digests)


SCRIPT = """
import sys
from sklearn_lpntk._runtime.fingerprint import fingerprint
from tests.nets import TRAPS
from tests.runtime.test_fingerprint import ORDINARY
import torch
for name in sys.argv[1:]:
    print(name, fingerprint(ORDINARY[name]()))
for name, make in sorted(TRAPS.items()):
    torch.manual_seed(0)
    print(name, fingerprint(make()[0]))
"""


def test_the_same_in_every_process():
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, *ORDINARY],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": str(REPOSITORY)},
            cwd=REPOSITORY,
            text=True,
            stdout=subprocess.PIPE,
        )
        for seed in "12"
    ]
    outputs = [process.communicate()[0].splitlines() for process in processes]
    assert len(outputs[0]) == len(ORDINARY) + len(TRAPS)
    assert outputs[0] == outputs[1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b"1", "1"),
        (1, 1.0),
        (0.0, -0.0),
        (np.float32(1), np.float64(1)),
        (torch.ones(2), nn.Parameter(torch.ones(2))),
        (nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2), requires_grad=False)),
        (Plain(1), Plain(2)),
        (np.random.RandomState(0), np.random.RandomState(1)),
        (torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)),
        (np.ma.array([1, 2], mask=[0, 1]), np.ma.array([1, 2], mask=[0, 0])),
        ({1: 2}, {1: 3}),
        ({1: 2, 3: 4}, {1: 4, 3: 2}),
        (math.sqrt, math.exp),
        ("a".join, "b".join),
        (nn.ReLU(), nn.Tanh()),
        (nn.Dropout(0.1), nn.Dropout(0.2)),
        (seeded(nn.Conv2d)(1, 1, 3), seeded(nn.Conv2d)(1, 1, 3, stride=2)),
    ],
)
def test_values_that_differ(one, other):
    assert fingerprint(one) != fingerprint(other)


def test_tied_weights_are_told_from_equal_ones():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].load_state_dict(net[0].state_dict())
    before = fingerprint(net)
    net[1].weight = net[0].weight
    assert fingerprint(net) != before
