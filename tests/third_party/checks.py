"""What holds in every third party's project: three checks of one that is written as its users do.

A project is trained for three epochs, by itself and with our callbacks; nothing of it is changed
but its list of callbacks, and where it needs telling, a Project says where things are.
"""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from small_runs import quiet_trainer
from torch import Tensor, nn
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_map

from critical_periods.callbacks import (
    DeficitWindow,
    FisherMonitor,
    Project,
    UsableInformationMonitor,
    WeightInformationMonitor,
)


@dataclass
class ThirdParty:
    """A project, and what these checks have to know of it.

    Attributes:
        module: makes its LightningModule.
        loaders: makes its loaders for training and validation.
        forward: the logits that the module (a copy of it in float64) gives for a batch.
        target: the targets of a batch.
        project: where things are, for our callbacks.
        framework: the package of Lightning that it is written for.
    """

    module: Callable[[], Any]
    loaders: Callable[[], tuple[Any, Any]]
    forward: Callable[[Any, Any], Tensor]
    target: Callable[[Any], Tensor]
    project: Project = field(default_factory=Project)
    framework: str = "pytorch_lightning"

    def fit(self, *callbacks: Any) -> tuple[Any, dict[str, float], list[tuple[int, Any]]]:
        """The trained module, what was logged, and what each training step received."""
        pl.seed_everything(0, workers=True, verbose=False)
        module = self.module()
        loaders = self.loaders()
        seen: list[tuple[int, Any]] = []
        own_step = module.training_step

        def step(batch: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append((module.current_epoch, tree_map(_clone, batch)))
            return own_step(batch, *args, **kwargs)

        # Lightning looks one decorator deep for the arguments that a step takes.
        step.__wrapped__ = own_step  # type: ignore[attr-defined]
        module.training_step = step
        trainer = quiet_trainer(
            *callbacks, framework=import_module(self.framework), max_epochs=3, logger=False
        )
        trainer.fit(module, *loaders)
        logged = {name: value.item() for name, value in trainer.callback_metrics.items()}
        return module, logged, seen


def monitors_change_nothing(case: ThirdParty) -> None:
    """Weights, buffers and inputs with all monitors are those without, to the bit.

    Of a network of one view, which has no source variance.
    """
    monitors = [
        FisherMonitor(samples=6, project=case.project),
        UsableInformationMonitor(project=case.project),
        WeightInformationMonitor(every_n_epochs=2, samples=6, steps=2, project=case.project),
    ]
    alone, _, inputs = case.fit()
    measured, logged, same_inputs = case.fit(*monitors)
    assert differing(alone.state_dict(), measured.state_dict()) == []
    assert [differing(a, b) for (_, a), (_, b) in zip(inputs, same_inputs, strict=True)] == (
        [[]] * len(inputs)
    )
    assert logged["fisher/trace"] > 0
    assert {"information/both", "information/weights"} <= set(logged)


def deficit_acts_only_where_it_should(
    case: ThirdParty, deficit: Any, edited: Callable[[Any], dict[str, Tensor]]
) -> None:
    """In epoch 1 the steps get what ``edited`` says of some leaves; all else is as ever."""
    _, _, clean = case.fit()
    _, logged, seen = case.fit(DeficitWindow(deficit, 1, 2, project=case.project))
    epochs = set()
    # Training takes another course from the deficit on, but what it is given does not.
    for (epoch, before), (same_epoch, after) in zip(clean, seen, strict=True):
        assert epoch == same_epoch
        expected = edited(before) if epoch == 1 else {}
        assert set(differing(before, after)) == set(expected)
        leaves = _leaves(after)
        for path, value in expected.items():
            torch.testing.assert_close(leaves[path], value, rtol=0, atol=0)
            assert type(leaves[path]) is type(_leaves(before)[path])
            epochs.add(epoch)
    assert epochs == {1}
    assert logged["deficit/active"] == 0


def measures_equal_a_loop(case: ThirdParty) -> None:
    """The Fisher trace and the information are those of a float64 loop over samples and classes."""
    callbacks = [
        FisherMonitor(split="val", samples=None, project=case.project),
        UsableInformationMonitor(project=case.project),
    ]
    module, logged, _ = case.fit(*callbacks)
    exact = copy.deepcopy(module).double().eval()
    trace, cross_entropy, targets = 0.0, 0.0, []
    for batch in case.loaders()[1]:
        in_float64 = tree_map(_to_float64, batch)
        log_p = case.forward(exact, in_float64).log_softmax(1)
        trace += sum(_score_norms(log_p_of_one, exact) for log_p_of_one in log_p)
        target = case.target(batch)
        cross_entropy -= log_p.gather(1, target[:, None]).sum().item()
        targets.append(target)
    target = torch.cat(targets)
    assert logged["fisher/trace"] == _close(trace / len(target))
    share = target.bincount().double() / len(target)
    entropy = torch.special.entr(share).sum().item()
    bits = (entropy - cross_entropy / len(target)) / math.log(2)
    assert logged["information/both"] == _close(bits)


def differing(before: Any, after: Any) -> list[str]:
    """The paths of the tensors of two trees that are not equal to the bit."""
    old, new = _leaves(before), _leaves(after)
    assert old.keys() == new.keys()
    return [path for path, value in old.items() if not torch.equal(value, new[path])]


def _score_norms(log_p: Tensor, module: nn.Module) -> float:
    """Σ_y p(y|x) ||∇ log p(y|x)||² of one sample."""
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    total = 0.0
    for one in log_p:
        gradients = torch.autograd.grad(one, weights, retain_graph=True, allow_unused=True)
        norm = sum(part.square().sum().item() for part in gradients if part is not None)
        total += one.exp().item() * norm
    return total


def _close(value: float) -> Any:
    return pytest.approx(value, rel=1e-3, abs=1e-4)


def _clone(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _to_float64(leaf: Any) -> Any:
    is_float = isinstance(leaf, Tensor) and leaf.is_floating_point()
    return leaf.as_subclass(Tensor).double() if is_float else leaf


def _leaves(tree: Any) -> dict[str, Tensor]:
    found = tree_flatten_with_path(tree)[0]
    return {keystr(path): leaf for path, leaf in found if isinstance(leaf, Tensor)}
