"""The part of a torchvision network before its global pooling, found in the network's graph.

Names of attributes differ from family to family, and some apply an activation outside any module; the graph that
``torch.fx`` records shows all of it in one form.
"""

from __future__ import annotations

from typing import Any

import torch
import torchvision
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

_SIDE = 224  # what the shapes are found with
_HEADS = ("classifier", "head", "heads", "fc")
_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)
_ACTIVATIONS = ("relu", "relu_", "relu6", "silu", "gelu", "hardswish", "leaky_relu")
_ADVICE = "for class maps take a convolutional network, such as resnet18, vgg16_bn or mobilenet_v3_small"
_AUXILIARY = ("googlenet", "inception_v3")


def torchvision_model(name: str, **options: Any) -> nn.Module:
    """A torchvision classification network with random weights and, in training too, logits as its one output."""
    if name in _AUXILIARY:
        options = {"aux_logits": False, "init_weights": True, **options}
    return torchvision.models.get_model(name, weights=None, **options)


def split_trunk(model: nn.Module, name: str) -> tuple[nn.Module, nn.Module, int]:
    """Cut ``model`` after its first activation and before its global pooling; the rest is left out.

    Args:
        model: takes images (N, 3, H, W); its weights are shared with the parts.
        name: for messages.

    Returns:
        ``stem``, images to first maps: the first convolution, with the normalisation and activation that directly
        follow; ``trunk``, first maps to last ones (N, channels, h, w); and ``channels``.

    Raises:
        ValueError: the model pools no maps, or its forward pass cannot be recorded.
    """
    graph = _record(model, name)
    _Shapes(fx.GraphModule(model.eval(), graph)).run(torch.zeros(1, 3, _SIDE, _SIDE))
    model.train()
    last = _last_maps(model, graph)
    first = _first_maps(model, graph)
    if last is None or first is None or first not in _ancestors(last, None):
        raise ValueError(f"{name!r} has no convolutional trunk that ends in a global pooling: {_ADVICE}")
    if any(node.op == "placeholder" for node in _ancestors(last, first)):
        raise ValueError(f"{name!r} uses the image again after its first convolution: it cannot be cut there")
    stem, trunk = _part(model, graph, None, first), _part(model, graph, first, last)
    return stem, trunk, last.meta["shape"][1]


class _Tracer(fx.Tracer):
    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        """Own layers of torchvision (stochastic depth) look at ``self.training``: they stay modules."""
        own = type(module).__module__.startswith("torchvision.ops") and not isinstance(module, nn.Sequential)
        return own or isinstance(module, _NORMS) or super().is_leaf_module(module, path)


class _Shapes(fx.Interpreter):
    @torch.no_grad()
    def run_node(self, node: fx.Node) -> Any:
        result = super().run_node(node)
        if isinstance(result, torch.Tensor):
            node.meta["shape"] = tuple(result.shape)
        return result


def _record(model: nn.Module, name: str) -> fx.Graph:
    try:
        graph, evaluation = _Tracer().trace(model.train()), _Tracer().trace(model.eval())
    except Exception as error:
        raise ValueError(f"{name!r}: torch.fx cannot record its forward pass: {error}") from error
    if str(graph) != str(evaluation):
        raise ValueError(f"{name!r} takes different paths in training and evaluation: {_ADVICE}")
    return graph


def _last_maps(model: nn.Module, graph: fx.Graph) -> fx.Node | None:
    """What the last pooling over space takes; layers of the classifier in between (SqueezeNet) are passed over."""
    for node in reversed(graph.nodes):
        if _pools(model, node):
            maps = node.all_input_nodes[0]
            while maps.op == "call_module" and str(maps.target).split(".")[0] in _HEADS:
                maps = maps.all_input_nodes[0]
            return maps
    return None


def _pools(model: nn.Module, node: fx.Node) -> bool:
    if not node.all_input_nodes:
        return False
    before, after = node.all_input_nodes[0].meta.get("shape", ()), node.meta.get("shape", ())
    if len(before) != 4 or min(before[2:]) < 2:
        return False
    # VGG and AlexNet pool to 7 x 7 and 6 x 6 before they flatten.
    return after in (before[:2], (*before[:2], 1, 1)) or isinstance(_layer(model, node), nn.AdaptiveAvgPool2d)


def _first_maps(model: nn.Module, graph: fx.Graph) -> fx.Node | None:
    first = next((node for node in graph.nodes if isinstance(_layer(model, node), nn.Conv2d)), None)
    while first is not None and len(first.users) == 1:
        (user,) = first.users
        layer = _layer(model, user)
        active = type(layer).__module__ == "torch.nn.modules.activation" or (
            user.op in ("call_function", "call_method")
            and getattr(user.target, "__name__", user.target) in _ACTIVATIONS
        )
        if not active and not isinstance(layer, _NORMS):
            break
        first = user
        if active:
            break
    return first


def _layer(model: nn.Module, node: fx.Node) -> nn.Module | None:
    return model.get_submodule(str(node.target)) if node.op == "call_module" else None


def _ancestors(end: fx.Node, start: fx.Node | None) -> set[fx.Node]:
    """``end`` and every node that it needs, up to ``start`` (not included)."""
    found: set[fx.Node] = set()
    waiting = [end]
    while waiting:
        node = waiting.pop()
        if node is not start and node not in found:
            found.add(node)
            waiting += node.all_input_nodes
    return found


def _part(model: nn.Module, graph: fx.Graph, start: fx.Node | None, end: fx.Node) -> nn.Module:
    """The nodes after ``start`` (None: from the image on) up to ``end``, with only the layers that they use."""
    part, needed = fx.Graph(), _ancestors(end, start)
    copies: dict[fx.Node, fx.Node] = {}
    if start is not None:
        copies[start] = part.placeholder("maps")
    for node in graph.nodes:
        if node in needed:
            copies[node] = part.node_copy(node, copies.__getitem__)
    part.output(copies[end])
    return fx.GraphModule(model, part, "Stem" if start is None else "Trunk")
