from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeicl.distill.meta_kd.transferability import expertise, transferability

# Two domains, one class: the prototypes are (1, 0) and (0, 1).
EAST_NORTH = np.array([[2.0, 0.0], [0.0, 0.0], [0.0, 3.0]])
TOLERANCE = 1e-6


def weights(
    embeddings: NDArray[np.float64],
    classes: list[int],
    domains: list[int],
    prototypes: str = "class",
    share: float = 0.5,
) -> NDArray[np.float32]:
    return transferability(
        embeddings,
        np.array(classes),
        np.array(domains),
        prototypes=prototypes,  # type: ignore[arg-type]
        own_domain_share=share,
    )


def test_on_paper() -> None:
    # Domain 0 has (1, 0) and (0, 1): prototype (0.5, 0.5). Domain 1 has (0, 2): prototype (0, 2).
    points = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
    cos45 = 2**-0.5
    assert weights(points, [0, 0, 0], [0, 0, 1]) == pytest.approx(
        [(cos45 + 0) / 2, (cos45 + 1) / 2, (1 + cos45) / 2], abs=TOLERANCE
    )
    assert weights(points, [0, 0, 0], [0, 0, 1], share=0.25)[1] == pytest.approx(
        0.25 * cos45 + 0.75, abs=TOLERANCE
    )


def test_classes_have_prototypes_of_their_own() -> None:
    # Class 0 points east in both domains, class 1 north; blind to class, all prototypes point north-east.
    points = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    args = ([0, 1, 0, 1], [0, 0, 1, 1])
    assert weights(points, *args) == pytest.approx([1, 1, 1, 1], abs=TOLERANCE)
    assert weights(points, *args, prototypes="domain") == pytest.approx([2**-0.5] * 4, abs=TOLERANCE)


def test_other_domains_are_averaged_after_the_cosine_or_before_it() -> None:
    # Seen from (1, 0): the others' prototypes are (1, 0) and (0, 3). Cosines 1 and 0, mean 0.5; their mean
    # (0.5, 1.5) has the cosine 0.5 / sqrt(2.5) = 0.3162.
    points = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 3.0]])
    args = ([0, 0, 0], [0, 1, 2])
    assert weights(points, *args)[0] == pytest.approx(0.5 + 0.5 * 0.5, abs=TOLERANCE)
    assert weights(points, *args, prototypes="domain")[0] == pytest.approx(0.5 + 0.5 * 0.316228, abs=1e-5)


def test_an_example_of_an_only_domain_counts_by_its_own_prototype() -> None:
    points = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert weights(points, [0, 0], [0, 0]) == pytest.approx([2**-0.5] * 2, abs=TOLERANCE)


def test_no_weight_is_negative_and_an_embedding_without_length_has_none() -> None:
    points = np.array([[1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]])
    found = weights(points, [0, 0, 0, 0], [0, 1, 1, 1], share=0.0)
    assert found == pytest.approx([0, 0, 0, 0], abs=TOLERANCE)


@pytest.mark.parametrize("prototypes", ["class", "domain"])
def test_against_a_second_implementation(prototypes: str) -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(40, 5)) + 2
    classes, domains = rng.integers(0, 2, 40), rng.integers(0, 3, 40)
    assert weights(points, list(classes), list(domains), prototypes, 0.3) == pytest.approx(
        one_by_one(points, classes, domains, prototypes, 0.3), abs=TOLERANCE
    )


def one_by_one(
    points: NDArray[np.float64],
    classes: NDArray[np.int64],
    domains: NDArray[np.int64],
    prototypes: str,
    share: float,
) -> list[float]:
    def centre(domain: int, label: int) -> NDArray[np.float64]:
        chosen = [
            point
            for point, of_class, of_domain in zip(points, classes, domains, strict=True)
            if of_domain == domain and (prototypes == "domain" or of_class == label)
        ]
        return np.asarray(sum(chosen) / len(chosen))

    def cosine(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
        return float(left @ right / np.sqrt(left @ left) / np.sqrt(right @ right))

    found = []
    for point, label, domain in zip(points, classes, domains, strict=True):
        others = [centre(other, label) for other in range(3) if other != domain]
        far = (
            float(np.mean([cosine(point, other) for other in others]))
            if prototypes == "class"
            else cosine(point, sum(others) / len(others))
        )
        found.append(max(0.0, share * cosine(point, centre(domain, label)) + (1 - share) * far))
    return found


def test_expertise_on_paper() -> None:
    # Certain and right: 1 / (1 + e^0). Certain and wrong: 1 / (1 + e^1). Even odds: 1 / (1 + e^0.25).
    log_probabilities = np.log(np.array([[1.0, 1e-30], [1e-30, 1.0], [0.5, 0.5]]))
    found = expertise(log_probabilities, np.array([0, 0, 1]))
    assert found == pytest.approx([0.5, 0.268941, 0.437823], abs=TOLERANCE)
