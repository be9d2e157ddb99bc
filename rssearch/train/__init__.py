"""How a network is trained and evaluated."""

from typing import TYPE_CHECKING

from rssearch.lazy import exports

if TYPE_CHECKING:
    from rssearch.train.context import TrainContext as TrainContext
    from rssearch.train.evaluation import evaluate as evaluate
    from rssearch.train.loop import fit as fit
    from rssearch.train.loop import recalibrate as recalibrate
    from rssearch.train.segmentation import evaluate_scenes as evaluate_scenes
    from rssearch.train.segmentation import predict_scene as predict_scene

__all__ = ["TrainContext", "evaluate", "evaluate_scenes", "fit", "predict_scene", "recalibrate"]

_MODULES = {
    "TrainContext": "context",
    "evaluate": "evaluation",
    "evaluate_scenes": "segmentation",
    "fit": "loop",
    "predict_scene": "segmentation",
    "recalibrate": "loop",
}
__getattr__ = exports(__name__, _MODULES)
