import pytest
import torch
import torch.nn.functional as F

from utils import loss
from utils.loss import HeadCrossEntropy


@pytest.mark.parametrize("chunk", [1, 150, 10_000])  # a row at a time, three rows at a time, all seven
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)]
)
def test_losses_and_gradients_are_cross_entropys(monkeypatch, chunk, dtype, tolerance):
    monkeypatch.setattr(loss, "CHUNK", chunk)
    torch.manual_seed(0)
    weight, labels = torch.randn(50, 8, dtype=dtype), torch.randint(0, 50, (7,))
    hidden = torch.randn(7, 8, dtype=dtype, requires_grad=True)
    weights = torch.rand(7).to(dtype)  # every row counts differently, as the rows of several runs do
    found, slopes = [], []
    for losses in (
        HeadCrossEntropy.apply(hidden, weight, labels),
        F.cross_entropy((hidden @ weight.T).to(torch.promote_types(dtype, torch.float32)), labels, reduction="none"),
    ):
        found.append(losses.detach())
        slopes.append(torch.autograd.grad((losses * weights).sum(), hidden)[0])
    torch.testing.assert_close(found[0], found[1], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(slopes[0], slopes[1], rtol=tolerance, atol=tolerance)
    assert found[0].dtype == torch.promote_types(dtype, torch.float32)


def test_two_equal_logits_cost_the_logarithm_of_two():
    hidden = torch.tensor([[1.0, 0.0]], requires_grad=True)
    losses = HeadCrossEntropy.apply(hidden, torch.tensor([[2.0, 5.0], [2.0, -1.0]]), torch.tensor([0]))
    assert losses.item() == pytest.approx(0.6931, abs=1e-4)  # logits 2 and 2
    losses.sum().backward()
    assert hidden.grad.tolist() == [[0.0, -3.0]]  # (0.5 - 1) (2, 5) + 0.5 (2, -1)


def test_a_gradient_check_in_float64():
    torch.manual_seed(1)
    hidden = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    weight, labels = torch.randn(6, 4, dtype=torch.float64), torch.tensor([5, 0, 2])
    assert torch.autograd.gradcheck(lambda h: HeadCrossEntropy.apply(h, weight, labels), (hidden,))
