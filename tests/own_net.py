"""A network of a user's own, importable by name."""

from torch import nn


def build(width=4, outputs=3):
    return nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, outputs))


class Holder:
    @staticmethod
    def nested():
        return build()
