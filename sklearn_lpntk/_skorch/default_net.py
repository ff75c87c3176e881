"""A small classifier for data of any shape."""

import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch import nn


class DefaultModule(nn.Module):
    """Standardised inputs, then two hidden layers: convolutions for images, else dense.

    Parameters
    ----------
    input_shape : tuple of int
        Shape of one sample: (C, H, W) or (H, W, C) for images, anything else is flattened.
    n_logits : int
    location, scale : float or array-like of the input's shape
        Subtracted from the inputs, and what they are divided by.
    """

    def __init__(self, input_shape, n_logits, location=0.0, scale=1.0):
        super().__init__()
        self.register_buffer("location", torch.as_tensor(location, dtype=torch.float32))
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32))
        self.channels_last = has_channels_last(input_shape)
        if len(input_shape) == 3:
            hidden = (
                nn.Conv2d(input_shape[-1 if self.channels_last else 0], 16, 3, padding=1, stride=2),
                nn.ReLU(),
                nn.Conv2d(16, 32, 3, padding=1, stride=2),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(4),
                nn.Flatten(),
            )
            width = 32 * 16
        else:
            n_inputs = int(np.prod(input_shape))
            hidden = nn.Flatten(), nn.Linear(n_inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()
            width = 64
        self.layers = nn.Sequential(*hidden, nn.Linear(width, n_logits))

    def forward(self, x):
        x = (x.to(self.scale.dtype) - self.location) / self.scale
        return self.layers(x.permute(0, 3, 1, 2) if self.channels_last else x)


def has_channels_last(shape):
    """Whether images have their channels behind, as files of images have."""
    known = 1, 3, 4
    return len(shape) == 3 and shape[0] not in known and shape[2] in known


def default_net(X, n_classes):
    """A small classifier for data of any shape, trained in seconds."""
    X = np.asarray(X)
    axes = 0 if X.ndim == 2 else None  # images are standardised as a whole
    location, scale = (f(X, axis=axes, dtype=np.float64) for f in (np.mean, np.std))
    return NeuralNetClassifier(
        DefaultModule,
        module__input_shape=X.shape[1:],
        module__n_logits=n_classes,
        module__location=location,
        module__scale=np.where(scale > 1e-10 * np.abs(location), scale, 1.0),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.01,
        # at least 200 steps, as far as 60 epochs go
        max_epochs=int(np.clip(np.ceil(200 * 64 / len(X)), 10, 60)),
        batch_size=64,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
