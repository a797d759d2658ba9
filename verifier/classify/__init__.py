"""Which provider does a reported secret belong to, and which part is which (see `classifier`, `pairing`)."""

from verifier.classify.aliases import Aliases, Says
from verifier.classify.classifier import Classifier
from verifier.classify.pairing import classify_all

__all__ = ["Aliases", "Classifier", "Says", "classify_all"]
