"""A small classifier for data of any shape."""

import numpy as np
import torch
from skorch import NeuralNetClassifier, NeuralNetRegressor
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
    output_location, output_scale : float or array-like of shape (n_logits,)
        The outputs are multiplied by the second, then the first is added.
    """

    def __init__(
        self, input_shape, n_logits, location=0.0, scale=1.0, output_location=0.0, output_scale=1.0
    ):
        super().__init__()
        constants = {
            "location": location,
            "scale": scale,
            "output_location": output_location,
            "output_scale": output_scale,
        }
        for name, value in constants.items():
            self.register_buffer(name, torch.as_tensor(value, dtype=torch.float32))
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
        out = self.layers(x.permute(0, 3, 1, 2) if self.channels_last else x)
        return out * self.output_scale + self.output_location


def has_channels_last(shape):
    """Whether images have their channels behind, as files of images have."""
    known = 1, 3, 4
    return len(shape) == 3 and shape[0] not in known and shape[2] in known


def default_net(X, n_classes):
    """A small classifier for data of any shape, trained in seconds."""
    return NeuralNetClassifier(
        DefaultModule, module__n_logits=n_classes, criterion=nn.CrossEntropyLoss, **_options(X)
    )


def default_regressor(X, y):
    """The same for numbers y of shape (n_samples,) or (n_samples, n_outputs)."""
    y = np.asarray(y, dtype=np.float64)
    location, scale = _moments(y, axis=0)
    return NeuralNetRegressor(
        DefaultModule,
        module__n_logits=1 if y.ndim == 1 else y.shape[1],
        module__output_location=location,
        module__output_scale=scale,
        criterion=ScaledLoss,
        criterion__scale=scale,
        **_options(X),
    )


class ScaledLoss(nn.Module):
    """Mean of the squared errors in units of a scale, that of each output."""

    def __init__(self, scale):
        super().__init__()
        self.register_buffer("scale", torch.as_tensor(scale, dtype=torch.float32))

    def forward(self, prediction, target):
        """The loss of predictions of shape (n, n_outputs)."""
        return (((prediction - target.reshape(prediction.shape)) / self.scale) ** 2).mean()


def _options(X):
    X = np.asarray(X)
    # images are standardised as a whole
    location, scale = _moments(X, axis=0 if X.ndim == 2 else None)
    return {
        "module__input_shape": X.shape[1:],
        "module__location": location,
        "module__scale": scale,
        "optimizer": torch.optim.Adam,
        "lr": 0.01,
        # at least 200 steps, as far as 60 epochs go
        "max_epochs": int(np.clip(np.ceil(200 * 64 / len(X)), 10, 60)),
        "batch_size": 64,
        "iterator_train__shuffle": True,
        "train_split": None,
        "verbose": 0,
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    }


def _moments(values, axis):
    """Mean and standard deviation, which is 1 where nothing varies."""
    location, scale = (f(values, axis=axis, dtype=np.float64) for f in (np.mean, np.std))
    return location, np.where(scale > 1e-10 * np.abs(location), scale, 1.0)
