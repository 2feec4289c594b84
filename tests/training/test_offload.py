import torch
from torch import nn
from torch.autograd.graph import save_on_cpu

from training import offload


class Noted(save_on_cpu):
    """`save_on_cpu`, and what it was given."""

    def __init__(self, **options):
        super().__init__(**options)
        self.given, copy = [], self.pack_hook
        self.pack_hook = lambda tensor: self.given.append(tensor) or copy(tensor)
        made.append(self)


made: list[Noted] = []


def test_activations_leave_and_weights_stay(monkeypatch):
    monkeypatch.setattr(offload, "save_on_cpu", Noted)
    layer, head, x = nn.Linear(6, 5), nn.Linear(5, 4), torch.randn(3, 6)
    layer.requires_grad_(False)
    x.requires_grad_()
    wanted = torch.autograd.grad(head(layer(x).tanh()).square().sum(), [x, *head.parameters()])
    with offload.activations_on_cpu([*layer.parameters(), *head.parameters()]):
        loss = head(layer(x).tanh()).square().sum()
    for gradient, right in zip(torch.autograd.grad(loss, [x, *head.parameters()]), wanted, strict=True):
        assert torch.equal(gradient, right)
    left = made.pop().given
    weights = {p.untyped_storage().data_ptr() for p in (*layer.parameters(), *head.parameters())}
    assert not weights & {tensor.untyped_storage().data_ptr() for tensor in left}
    assert sum(tensor.numel() for tensor in left) >= 2 * 3 * 5  # tanh's result, once for it and once for the head
