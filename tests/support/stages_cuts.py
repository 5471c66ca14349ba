"""Stages that find cuts, with the weights that their package brings."""

from pathlib import Path

from civid_loader.processing.scores.transnet_cuts import TransnetCuts, TransnetCutsParams
from civid_loader.processing.weights import find_weights


def make_transnet_cuts(folder: Path) -> TransnetCuts:
    """The trained network."""
    needed = TransnetCuts(TransnetCutsParams()).weights_needed()
    weights = {role: find_weights(role, need, given=None, may_download=False) for role, need in needed.items()}
    return TransnetCuts(TransnetCutsParams(), weights=weights)
