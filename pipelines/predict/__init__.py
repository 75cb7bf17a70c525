"""From measured cells to worker counts that were not: alpha-beta models, always a prediction."""

from pipelines.compare.prediction_model import Prediction
from pipelines.predict.network import parse_network
from pipelines.predict.predict import predict
from pipelines.predict.terminal import print_prediction

__all__ = ["Prediction", "parse_network", "predict", "print_prediction"]
