"""Objectives: scalars of logits of any shape, ragged ones, and several on one side only."""

import pytest
import torch
from torch import nn

from sklearn_lpntk._engine.extract import Extractor
from sklearn_lpntk._engine.kernel import Kernel
from sklearn_lpntk._engine.objectives import Objective, find_objective

from ..nets import Wrap
from ..oracle import assert_same_kernel

LENGTH, WORDS = 5, 11


def language_model():
    """Logits (n, T, V) of the next word, the head tied to the embedding."""

    def forward(self, x):
        later = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
        return nn.functional.linear(self.layer(self.embed(x), src_mask=later), self.embed.weight)

    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    return Wrap(forward, embed=nn.Embedding(WORDS, 8), layer=layer).double().eval()


def tokens(logits, y):
    """Log-probabilities of the words that follow, the first y of them."""
    found = logits[:, :-1].log_softmax(-1)
    words = (torch.arange(LENGTH - 1) + y[:, None]) % WORDS
    scalars = found.gather(2, words.unsqueeze(2)).squeeze(2)
    return scalars, torch.arange(LENGTH - 1) < y[:, None]


TOKENS = Objective("tokens", tokens, needs_y=True, any_shape=True)


def by_autograd(net, objective, X, y):
    parameters, rows = list(net.parameters()), []
    for x, label in zip(X, y):
        for scalar in objective(net(x[None]), label[None])[0]:
            found = torch.autograd.grad(scalar, parameters, retain_graph=True)
            rows.append(torch.cat([g.flatten() for g in found]))
    return torch.stack(rows)


@pytest.fixture
def data():
    torch.manual_seed(0)
    return torch.randint(0, WORDS, (9, LENGTH)), torch.arange(9) % LENGTH


@pytest.mark.parametrize("batch_size", ["auto", 4])
def test_tokens_of_a_language_model(data, batch_size):
    net, (X, y) = language_model(), data
    extractor = Extractor(net, TOKENS, batch_size=batch_size)
    features = extractor(X, y)
    assert (features.n_samples, features.n_cotangents) == (9, LENGTH - 1)
    assert not extractor.plan.autograd
    phi = by_autograd(net, TOKENS, X, y)
    assert_same_kernel(features.gram(features).numpy(), (phi @ phi.T).numpy())
    absent = torch.arange(LENGTH - 1) >= y[:, None]
    assert (features.diagonal()[absent.flatten()] == 0).all()


def test_several_scalars_on_one_side_only(data):
    net, (X, y) = language_model(), data
    whole = Objective("sum", lambda z, y: tokens(z, y)[0].sum(1, keepdim=True), any_shape=True)
    left, right = Extractor(net, TOKENS)(X, y), Extractor(net, whole)(X[:4], y[:4])
    kernel = Kernel(left, right)
    assert kernel.shape == (9 * (LENGTH - 1), 4)
    found = torch.zeros(kernel.shape, dtype=torch.float64)
    for rows, cols, tile in kernel.tiles():
        found[rows, cols] = tile
    expected = by_autograd(net, TOKENS, X, y) @ by_autograd(net, whole, X[:4], y[:4]).T
    assert_same_kernel(found.numpy(), expected.numpy())


def test_logits_of_other_shapes_are_refused_by_cotangents(data):
    with pytest.raises(ValueError, match=r"logits of shape \(n_samples, n_logits\)"):
        Extractor(language_model(), find_objective("pntk"))(*data)


def test_scalars_of_another_shape_are_refused(data):
    wrong = Objective("wrong", lambda z, y: z.sum((1, 2)), any_shape=True)
    with pytest.raises(ValueError, match=r"'wrong' must return a tensor of shape \(4, R\)"):
        Extractor(language_model(), wrong, batch_size=4)(*data)
