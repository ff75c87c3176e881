"""Trap nets: each breaks some shortcut to per-sample gradients.

``TRAPS`` maps a name to a function that returns (module in float64, X, number of logits).
"""

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, rnn

TRAPS = {}


def trap(function):
    TRAPS[function.__name__] = function
    return function


def image(n, channels, *size):
    return torch.randn(n, channels, *size, dtype=torch.float64)


class Wrap(nn.Module):
    """Modules by name, and a forward function over them."""

    def __init__(self, forward, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self._forward = forward

    def forward(self, *args, **kwargs):
        return self._forward(self, *args, **kwargs)


@trap
def lenet5():
    net = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(inplace=True),
        nn.Linear(120, 84),
        nn.ReLU(inplace=True),
        nn.Linear(84, 10),
    )
    return net.double(), image(7, 1, 28, 28), 10


class BasicBlock(nn.Module):
    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.shortcut = nn.Identity()
        if stride > 1 or n_in != n_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return F.relu(out, inplace=True)


def resnet18(width=64, n_logits=10):
    layers = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(True)]
    n_in = width
    for stage in range(4):
        n_out = width * 2**stage
        layers += [BasicBlock(n_in, n_out, 1 if stage == 0 else 2), BasicBlock(n_out, n_out, 1)]
        n_in = n_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n_in, n_logits))


@trap
def resnet18_after_training():
    """Running statistics and affine parameters away from their initial values."""
    net = resnet18(width=4).double().train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        F.cross_entropy(net(image(16, 3, 16, 16)), torch.arange(16) % 10).backward()
        optimizer.step()
    net.zero_grad(set_to_none=True)
    return net.eval(), image(5, 3, 16, 16), 10


def _transformer(batch_first, n_tokens):
    def forward(self, x):
        x = x if batch_first else x.transpose(0, 1)
        return self.out(self.encoder(self.embed(x)).mean(1 if batch_first else 0))

    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 12, batch_first=batch_first),
        num_layers=2,
        enable_nested_tensor=False,
    )
    net = Wrap(forward, embed=nn.Linear(3, 8), encoder=encoder, out=nn.Linear(8, 4))
    return net.double(), image(6, n_tokens, 3), 4


@trap
def transformer_encoder():
    return _transformer(True, 5)


@trap
def transformer_sequence_first():
    return _transformer(False, 5)


@trap
def transformer_sequence_first_as_long_as_the_batch():
    return _transformer(False, 6)


@trap
def lstm():
    net = Wrap(
        lambda self, x: self.out(self.lstm(x)[0][:, -1]),
        lstm=nn.LSTM(3, 5, num_layers=2, bidirectional=True, batch_first=True),
        out=nn.Linear(10, 4),
    )
    return net.double(), image(5, 6, 3), 4


@trap
def bag_of_words():
    net = Wrap(
        lambda self, x: self.out(torch.tanh(self.embed(x).mean(1))),
        embed=nn.Embedding(11, 4, padding_idx=0),
        out=nn.Linear(4, 3),
    )
    return net.double(), torch.randint(0, 11, (8, 6)), 3


@trap
def large_vocabulary():
    """The embedding's gradient stays factored: materialised it is mostly zeros."""
    net = Wrap(
        lambda self, x: self.out(torch.tanh(self.embed(x)).sum(1)),
        embed=nn.Embedding(500, 4),
        out=nn.Linear(4, 3),
    )
    return net.double(), torch.randint(0, 7, (8, 3)), 3


@trap
def embedding_bag():
    net = Wrap(
        lambda self, x: self.out(self.mean(x) + self.sum(x)),
        mean=nn.EmbeddingBag(9, 4, mode="mean", padding_idx=2),
        sum=nn.EmbeddingBag(9, 4, mode="sum"),
        out=nn.Linear(4, 3),
    )
    return net.double(), torch.randint(0, 9, (7, 5)), 3


@trap
def max_norm_embedding():
    net = Wrap(
        lambda self, x: self.out(self.embed(x).sum(1)),
        embed=nn.Embedding(9, 4, max_norm=0.5),
        out=nn.Linear(4, 3),
    )
    return net.double(), torch.randint(0, 9, (6, 3)), 3


@trap
def sparse_embedding():
    net = Wrap(
        lambda self, x: self.out(self.embed(x).sum(1)),
        embed=nn.Embedding(9, 4, sparse=True),
        out=nn.Linear(4, 3),
    )
    return net.double(), torch.randint(0, 9, (6, 3)), 3


@trap
def positional_embedding():
    """One call for all samples: its output has no sample axis."""
    net = Wrap(
        lambda self, x: self.out(
            (self.embed(x) + self.position(torch.arange(4, device=x.device))).tanh().mean(1)
        ),
        embed=nn.Embedding(9, 4),
        position=nn.Embedding(4, 4),
        out=nn.Linear(4, 3),
    )
    return net.double(), torch.randint(0, 9, (8, 4)), 3


@trap
def tied_weights():
    net = Wrap(
        lambda self, x: F.linear(torch.tanh(self.mix(self.embed(x).mean(1))), self.out.weight),
        embed=nn.Embedding(6, 5),
        mix=nn.Linear(5, 5),
        out=nn.Linear(5, 6, bias=False),
    )
    net.out.weight = net.embed.weight
    return net.double(), torch.randint(0, 6, (7, 4)), 6


@trap
def language_model():
    """A head tied to the embedding, and a layer kept as vectors whose products are written out."""
    net = Wrap(
        lambda self, x: torch.log_softmax(
            F.linear(torch.tanh(self.mix(self.embed(x))), self.embed.weight), 2
        )[:, :, :3].sum(1),
        embed=nn.Embedding(100, 64),
        mix=nn.Linear(64, 64),
    )
    net.embed.weight.data.mul_(0.2)
    return net.double(), torch.randint(0, 100, (7, 8)), 3


@trap
def shared_module_under_two_names():
    shared = nn.Linear(5, 5)
    return nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(5, 3)).double(), image(6, 5), 3


@trap
def shared_module_without_a_rule():
    shared = nn.ConvTranspose2d(1, 1, 3, padding=1)
    net = nn.Sequential(shared, nn.Tanh(), shared, nn.Flatten(), nn.Linear(16, 3))
    return net.double(), image(6, 1, 4, 4), 3


@trap
def layer_called_twice():
    net = Wrap(
        lambda self, x: self.out(self.act(self.a(self.act(self.a(x))))),
        a=nn.Linear(5, 5),
        act=nn.ReLU(inplace=True),
        out=nn.Linear(5, 3),
    )
    return net.double(), image(8, 5), 3


@trap
def convolution_called_three_times():
    def forward(self, x):
        for _ in range(3):
            x = F.relu(self.conv(x), inplace=True)
        return self.out(x.flatten(1))

    net = Wrap(forward, conv=nn.Conv2d(2, 2, 3, padding=1), out=nn.Linear(50, 3))
    return net.double(), image(6, 2, 5, 5), 3


@trap
def in_place_on_a_view():
    """Linear's output for 3-d input is a view: an in-place op rewrites its base's history."""

    def forward(self, x):
        h = self.a(x)
        h[:, 0].mul_(2)
        h.relu_()
        return self.out(h.flatten(1))

    net = Wrap(forward, a=nn.Linear(3, 4), out=nn.Linear(20, 3))
    return net.double(), image(6, 5, 3), 3


@trap
def residual_in_place():
    def forward(self, x):
        h = self.a(x)
        h += x
        h *= 0.5
        return self.out(torch.relu_(h))

    net = Wrap(forward, a=nn.Linear(4, 4), out=nn.Linear(4, 3))
    return net.double(), image(6, 4), 3


@trap
def frozen_layers():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3))
    net[0].requires_grad_(False)
    net[2].weight.requires_grad_(False)
    net[4].bias.requires_grad_(False)
    return net.double(), image(6, 4), 3


@trap
def frozen_convolution_weight():
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(48, 3))
    net[0].weight.requires_grad_(False)
    return net.double(), image(5, 1, 6, 6), 3


@trap
def grouped_dilated_circular():
    net = nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=2, dilation=2, groups=2, padding_mode="circular"),
        nn.Tanh(),
        nn.Conv2d(8, 8, 3, stride=2, groups=8),
        nn.Tanh(),
        nn.Conv2d(8, 4, (2, 1), padding="same", bias=False, padding_mode="reflect"),
        nn.Flatten(),
        nn.Linear(16, 3),
    )
    return net.double(), image(5, 4, 6, 6), 3


@trap
def one_and_three_dimensional_convolutions():
    def forward(self, x):
        flat = torch.tanh(self.conv1(x.flatten(2)))
        deep = torch.tanh(self.conv3(x))
        return self.out(torch.cat([flat.flatten(1), deep.flatten(1)], 1))

    net = Wrap(
        forward,
        conv1=nn.Conv1d(2, 3, 4, stride=3, padding="valid"),
        conv3=nn.Conv3d(2, 2, (1, 2, 3), padding=(0, 1, 1), padding_mode="replicate"),
        out=nn.Linear(3 * 10 + 2 * 2 * 5 * 4, 3),
    )
    return net.double(), image(5, 2, 2, 4, 4), 3


@trap
def normalisations():
    def forward(self, x):
        h = self.batch(self.conv(x))
        h = self.group(torch.tanh(h))
        h = self.instance(h)
        h = self.tracked(h)
        h = self.layer(h)
        h = self.rms(h.flatten(2))
        return self.out(self.batch1(h.flatten(1)))

    net = Wrap(
        forward,
        conv=nn.Conv2d(2, 4, 3),
        batch=nn.BatchNorm2d(4),
        group=nn.GroupNorm(2, 4),
        instance=nn.InstanceNorm2d(4, affine=True),
        tracked=nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
        layer=nn.LayerNorm((4, 3, 3)),
        rms=nn.RMSNorm(9),
        batch1=nn.BatchNorm1d(36),
        out=nn.Linear(36, 3),
    ).double()
    for name, p in net.named_parameters():
        if not name.startswith(("conv", "out")):
            nn.init.normal_(p, 1.0, 0.3)
    net.train()
    for _ in range(3):
        net(image(16, 2, 5, 5))
    return net.eval(), image(6, 2, 5, 5), 3


@trap
def attention():
    net = Wrap(
        lambda self, x: self.out(self.attention(x, x, x, need_weights=False)[0].mean(1)),
        attention=nn.MultiheadAttention(4, 2, batch_first=True),
        out=nn.Linear(4, 3),
    )
    return net.double(), image(5, 6, 4), 3


@trap
def bare_parameter():
    net = Wrap(lambda self, x: self.out(torch.tanh(x * self.gain)), out=nn.Linear(4, 3))
    net.gain = nn.Parameter(torch.randn(4))
    return net.double(), image(6, 4), 3


@trap
def weight_norm_and_spectral_norm():
    net = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(4, 5)),
        nn.Tanh(),
        parametrizations.spectral_norm(nn.Linear(5, 5)),
        nn.Tanh(),
        nn.Linear(5, 3),
    )
    return net.double(), image(6, 4), 3


@trap
def functional_use_of_a_weight():
    """The layer is called, and its weight is used once more behind its back."""
    net = Wrap(
        lambda self, x: self.out(F.linear(torch.tanh(self.a(x)), self.a.weight)),
        a=nn.Linear(4, 4),
        out=nn.Linear(4, 3),
    )
    return net.double(), image(6, 4), 3


class ScaledLinear(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x) + x


@trap
def overridden_forward():
    return nn.Sequential(ScaledLinear(4, 4), nn.Tanh(), nn.Linear(4, 3)).double(), image(6, 4), 3


@trap
def user_hooks():
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    net[0].register_forward_hook(lambda module, args, out: out * 3)
    net[0].register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    return net, image(6, 4), 3


@trap
def windows():
    """(samples * windows, tokens, features), samples first."""
    net = Wrap(
        lambda self, x: self.out(torch.tanh(self.a(x.reshape(-1, 2, 3))).reshape(len(x), -1)),
        a=nn.Linear(3, 4),
        out=nn.Linear(24, 3),
    )
    return net.double(), image(5, 6, 3), 3


@trap
def windows_in_the_wrong_order():
    """(windows * samples, ...): rows of one sample are not neighbours."""

    def forward(self, x):
        h = x.transpose(0, 1).reshape(-1, 3)  # tokens first
        return self.out(torch.tanh(self.a(h)).reshape(6, len(x), 4).transpose(0, 1).flatten(1))

    net = Wrap(forward, a=nn.Linear(3, 4), out=nn.Linear(24, 3))
    return net.double(), image(5, 6, 3), 3


@trap
def unused_head_and_no_grad_branch():
    def forward(self, x):
        with torch.no_grad():
            skip = self.fixed(x)
        return self.out(torch.tanh(self.a(x)) + skip)

    net = Wrap(
        forward,
        fixed=nn.Linear(4, 4),
        a=nn.Linear(4, 4),
        out=nn.Linear(4, 3),
        unused=nn.Linear(4, 7),
    )
    return net.double(), image(6, 4), 3


@trap
def branches_on_the_batch():
    """The first row alone decides; every batch of the tests is cut so that rows agree."""

    def forward(self, x):
        if len(x) > 4:
            return self.out(torch.tanh(self.b(self.a(x))))
        return self.out(torch.tanh(F.linear(self.a(x), self.b.weight, self.b.bias)))

    net = Wrap(forward, a=nn.Linear(4, 4), b=nn.Linear(4, 4), out=nn.Linear(4, 3))
    return net.double(), image(9, 4), 3


@trap
def dropout_and_dict_input():
    net = Wrap(
        lambda self, left, right: (self.out(self.drop(torch.tanh(self.a(left)) * right)), None),
        a=nn.Linear(4, 4),
        drop=nn.Dropout(0.5),
        out=nn.Linear(4, 3),
    )
    return net.double(), {"left": image(6, 4), "right": image(6, 4)}, 3


@trap
def one_logit():
    net = Wrap(
        lambda self, x: self.out(torch.tanh(self.a(x))).squeeze(1),
        a=nn.Linear(4, 5),
        out=nn.Linear(5, 1),
    )
    return net.double(), image(6, 4), 1


@trap
def transposed_convolution():
    net = nn.Sequential(
        nn.ConvTranspose2d(2, 3, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(243, 3)
    )
    return net.double(), image(5, 2, 4, 4), 3


def _packed(layer, n_out):
    """Sequences of different lengths, sorted inside, and their last states and outputs."""

    def forward(self, x):
        lengths = (x[:, :, 0] != 0).sum(1).cpu()
        rows = rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        out, state = self.layer(rows)
        state = state[0] if isinstance(state, tuple) else state
        out = out._replace(data=torch.tanh(self.middle(out.data)))
        padded, _ = rnn.pad_packed_sequence(out, batch_first=True, total_length=x.shape[1])
        return self.out(padded.sum(1)) + self.last(state[-1])

    last = getattr(layer, "proj_size", 0) or layer.hidden_size
    parts = {"middle": nn.Linear(n_out, 5), "out": nn.Linear(5, 3), "last": nn.Linear(last, 3)}
    x = image(7, 6, 3)
    for row, length in zip(x, [3, 6, 1, 2, 6, 4, 5]):
        row[length:] = 0
    return Wrap(forward, layer=layer, **parts).double(), x, 3


@trap
def packed_lstm():
    return _packed(nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True, proj_size=2), 4)


@trap
def packed_gru():
    return _packed(nn.GRU(3, 4, batch_first=True, bidirectional=True), 8)


@trap
def experts_on_picked_rows():
    """Rows go to one of two experts, and back to where they were."""

    def forward(self, x):
        first, out = x[:, 0] > 0, torch.zeros_like(x)
        out[first] = torch.tanh(self.a(x[first]))
        rest = (~first).nonzero()[:, 0]
        return self.out(out.index_put((rest,), self.b(x[rest]) * self.scale))

    net = Wrap(forward, a=nn.Linear(6, 6), b=nn.Linear(6, 6), out=nn.Linear(6, 3))
    net.scale = nn.Parameter(torch.randn(6))
    return net.double(), image(6, 6), 3


@trap
def opaque():
    """An operation without a rule: the parameter takes the autograd rule."""
    net = Wrap(
        lambda self, x: self.out(F.cosine_similarity(x[:, None], self.gain, dim=2)),
        out=nn.Linear(5, 3),
    )
    net.gain = nn.Parameter(torch.randn(5, 4))
    return net.double(), image(6, 4), 3


# the parameters of each trap that take the autograd rule; all others have a layer rule
SLOW = dict.fromkeys(TRAPS, frozenset()) | {"opaque": {"gain"}}


def branching():
    """Rows with a large first entry use a weight where it has no rule."""

    def forward(self, x):
        out = self.a(x)
        later = (x[:, 0] > 5).any()
        return out + F.cosine_similarity(x[:, None], self.a.weight, dim=2) if later else out

    torch.manual_seed(0)
    X = torch.randn(40, 4).double()
    X[:, 0] = torch.arange(40) // 20 * 6
    return Wrap(forward, a=nn.Linear(4, 3, bias=False)).double(), X
