"""A method's name -> its class; one method a file, imported when asked for.

A method owns the student encoder, the teacher where it keeps one, and its other heads; it
turns two views into a loss. Everything else of a run is the same for all.
"""

from __future__ import annotations

from importlib import import_module

from train.methods.method import Method
from train.models.backbones import Backbone
from train.models.encoder import Encoder
from train.models.heads import AnchoredProjector
from train.settings.config import TrainConfig
from train.state.checkpoint import Checkpoint
from vssl.errors import InputError

METHODS = {
    "vssl": "train.methods.vssl",
    "vssl-gaussian": "train.methods.vssl_gaussian",
    "vje": "train.methods.vje",
    "barlow-twins": "train.methods.barlow_twins",
    "byol": "train.methods.byol",
    "deepcluster-v2": "train.methods.deepcluster_v2",
    "dino": "train.methods.dino",
    "moco-v2plus": "train.methods.moco_v2plus",
    "moco-v3": "train.methods.moco_v3",
    "nnclr": "train.methods.nnclr",
    "ressl": "train.methods.ressl",
    "simclr": "train.methods.simclr",
    "simsiam": "train.methods.simsiam",
    "swav": "train.methods.swav",
    "vicreg": "train.methods.vicreg",
}
"""Names on the command line and the module of each, which names its class `METHOD`."""


def method_class(name: str) -> type[Method]:
    """Return the class registered under a name. Raises InputError for an unknown one."""
    if name not in METHODS:
        raise InputError(f"method: found {name!r}, expected one of {', '.join(METHODS)}")
    found: type[Method] = import_module(METHODS[name]).METHOD
    return found


def new_encoder(config: TrainConfig) -> Encoder:
    """Build an untrained encoder with the projector of the config's method."""
    backbone = Backbone(config.network)
    projector = method_class(config.method).projector(backbone.feature_dim, config)
    if config.freeze:
        backbone.requires_grad_(False)
    if not config.is_published:
        return Encoder(config, projector, backbone)
    encoder = Encoder(config, AnchoredProjector(projector, backbone.feature_dim), backbone)
    backbone.keep_statistics()
    return encoder


def new_method(config: TrainConfig) -> Method:
    """Build an untrained method."""
    return method_class(config.method)(config, new_encoder(config))


def build_encoder(checkpoint: Checkpoint, branch: str = "student") -> Encoder:
    """Build the student or the teacher of a checkpoint, weights loaded, in eval mode.

    Raises InputError for another branch, or `teacher` where the method keeps none.
    """
    weights = {"student": checkpoint.student, "teacher": checkpoint.teacher}
    if branch not in weights:
        raise InputError(f"branch: found {branch!r}, expected student or teacher")
    state = weights[branch]
    if state is None:
        raise InputError(f"the method {checkpoint.config.method!r} keeps no teacher; use the branch student")
    encoder = new_encoder(checkpoint.config)
    encoder.load_state_dict(state)
    return encoder.eval()
