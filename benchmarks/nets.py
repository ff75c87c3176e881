"""The networks of the benchmarks."""

import torch
from torch import nn
from torch.nn import functional as F


def lenet5():
    """LeNet-5 for 28 x 28 images, 61,706 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


class BasicBlock(nn.Module):
    """Two convolutions around a shortcut."""

    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.shortcut = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)
            )

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


def resnet18():
    """ResNet-18 for 32 x 32 colour images, 11,173,962 parameters."""
    layers = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    n_in = 64
    for stage, n_out in enumerate((64, 128, 256, 512)):
        layers += [BasicBlock(n_in, n_out, 1 + (stage > 0)), BasicBlock(n_out, n_out, 1)]
        n_in = n_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def small_resnet():
    """A ResNet of three stages for 32 x 32 colour images: 78,042 parameters, 6.3 MFLOP."""
    layers = [nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    n_in = 16
    for stage, n_out in enumerate((16, 32, 64)):
        layers.append(BasicBlock(n_in, n_out, 1 + (stage > 0)))
        n_in = n_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def digit_net(width=8, size=8):
    """A LeNet in miniature for 8 x 8 images."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * (size // 4) ** 2, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def convnet():
    """Three 3 x 3 convolutions at full size for 32 x 32 colour images."""
    layers, n_in = [], 3
    for n_out, pool in ((32, 1), (32, 2), (64, 2)):
        layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(pool)] * (pool > 1)
        n_in = n_out
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 64, 10))


def mobilenet():
    """Depthwise and pointwise convolutions with BatchNorm for 32 x 32 colour images."""
    layers = [nn.Conv2d(3, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()]
    n_in = 32
    for n_out, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)):
        layers += [nn.Conv2d(n_in, n_in, 3, stride, 1, groups=n_in, bias=False)]
        layers += [nn.BatchNorm2d(n_in), nn.ReLU6(), nn.Conv2d(n_in, n_out, 1, bias=False)]
        layers += [nn.BatchNorm2d(n_out), nn.ReLU6()]
        n_in = n_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10))


def conv1d():
    """Three convolutions over series of 128 steps and 8 channels."""
    layers, n_in = [], 8
    for n_out in (32, 64, 64):
        layers += [nn.Conv1d(n_in, n_out, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2)]
        n_in = n_out
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 16, 10))


def mlp(n_logits=10, width=1024):
    """784-width-width-n_logits."""
    return nn.Sequential(
        nn.Linear(784, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, n_logits),
    )


class Recurrent(nn.Module):
    """A recurrent layer over the 28 rows of an image, and a head on its last state."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer(28, 128, batch_first=True)
        self.head = nn.Linear(128, 10)

    def forward(self, x):
        return self.head(self.layer(x)[0][:, -1])


def lstm():
    return Recurrent(nn.LSTM)


def gru():
    return Recurrent(nn.GRU)


class VisionTransformer(nn.Module):
    """Four layers of width 128 over 64 patches of a 32 x 32 colour image."""

    def __init__(self, layer):
        super().__init__()
        self.patches = nn.Conv2d(3, 128, 4, 4)
        self.position = nn.Parameter(0.02 * torch.randn(1, 64, 128))
        self.layers = nn.Sequential(*[layer() for _ in range(4)])
        self.norm, self.head = nn.LayerNorm(128), nn.Linear(128, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.layers(x)).mean(1))


class Attention(nn.Module):
    """A pre-norm transformer layer of plain ``nn.Linear``."""

    def __init__(self, width=128, n_heads=4):
        super().__init__()
        self.n_heads = n_heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        heads = self.qkv(self.norm1(x)).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        x = x + self.out(mixed)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


def vit():
    """Of PyTorch's own layers."""
    return VisionTransformer(
        lambda: nn.TransformerEncoderLayer(128, 4, 512, batch_first=True, norm_first=True)
    )


def vit_of_linear():
    return VisionTransformer(Attention)
