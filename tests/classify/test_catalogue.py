"""The shapes of all shipped provider files, together: none of them claims another's key."""

from __future__ import annotations

import makers
import pytest

from verifier.catalogue import load_catalogue
from verifier.classify import Classifier
from verifier.model import Claim, Place, SourceKind
from verifier.offline.checksums import BY_KIND, CHECKS
from verifier.secret import Secret
from verifier.shapes import Shape, merge, shipped_needs, shipped_shapes, spec_shapes

CATALOGUE = load_catalogue()
CLASSIFIER = Classifier.of(CATALOGUE)
SHAPES = tuple(spec_shapes(CATALOGUE))


def found(value: str, provider: str | None = None):  # noqa: ANN201  # the classifier's own answer
    return CLASSIFIER.classify(Claim("x", "generic", Secret(value), Place(SourceKind.GIT), 1, {}, provider))


@pytest.mark.parametrize(
    "shape", [s for s in SHAPES if s.context == "alone"], ids=lambda s: f"{s.kind}-{s.pattern[:20]}"
)
def test_a_shape_that_a_provider_calls_distinctive_is_its_own(shape: Shape) -> None:
    for seed in range(5):
        value = makers.of_shape(shape, seed)
        told = found(value)
        assert told.provider == shape.kind or shape.kind in told.candidates, value
        assert value in [v.reveal() for v in told.parts.values()]


@pytest.mark.parametrize("kind", [k.id for k in CATALOGUE if any(s.part == "secret" for s in k.shape)])
def test_the_parts_of_a_provider_are_what_the_classifier_fills(kind: str) -> None:
    spec = CATALOGUE.kinds[kind]
    shape = next(s for s in SHAPES if s.kind == kind and s.part == "secret")
    told = found(makers.of_shape(shape, 1), kind)
    assert told.provider == kind
    assert set(told.parts) <= {*spec.parts, *spec.optional}


def test_a_checksum_that_a_spec_names_exists_and_fits_the_kind() -> None:
    for shape in (*SHAPES, *shipped_shapes()):
        if shape.checksum is not None:
            assert shape.checksum in CHECKS
            assert BY_KIND[shape.kind] == shape.checksum


def test_specs_replace_the_shipped_shapes_of_the_same_part_only() -> None:
    mine = Shape("stripe", "secret", "mine")
    kept = merge(shipped_shapes(), [mine])
    assert [s for s in kept if s.kind == "stripe"] == [mine]
    assert [s for s in kept if s.kind == "twilio"] == [s for s in shipped_shapes() if s.kind == "twilio"]


def test_a_kind_without_a_provider_file_is_still_named() -> None:
    for kind in shipped_needs():
        if kind not in CATALOGUE.kinds and any(s.kind == kind and s.part == "secret" for s in shipped_shapes()):
            assert found(makers.make(kind), kind).provider == kind
