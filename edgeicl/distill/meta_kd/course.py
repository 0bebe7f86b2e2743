"""A course: how one teacher is trained, and what its student takes from it.

Meta-KD is one, and so are the baselines that it is compared with, in the same steps with less in them.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgeicl.distill import evaluate as methods
from edgeicl.distill.meta_kd.feature_matching import MatchingTerms
from edgeicl.specs.meta_kd import MetaKD


@dataclass(frozen=True)
class Course:
    """Names of the rows of student and teacher, which domains the teacher sees, and which terms there are."""

    student: str
    teacher: str
    own_domain: bool
    other_domains: bool
    weighted: bool
    confusion: float
    expertise: bool
    terms: MatchingTerms


def meta_kd_course(settings: MetaKD) -> Course:
    """Meta-KD as the recipe asks for it."""
    matching = settings.matching
    return Course(
        methods.META_KD,
        methods.META_TEACHER,
        own_domain=settings.domain_in_teacher,
        other_domains=True,
        weighted=settings.weights.prototypes != "none",
        confusion=settings.confusion.weight,
        expertise=matching.expertise,
        terms=MatchingTerms(matching.hidden, matching.attention, matching.domain_feature),
    )


def baseline_courses(settings: MetaKD) -> list[Course]:
    """Distillation from a teacher of one domain, and from one of all, without weights and domain head."""
    terms = MatchingTerms(settings.matching.hidden, settings.matching.attention, domain_feature=0.0)
    names = {
        "single_domain": (methods.SINGLE_DOMAIN_DISTILLATION, methods.SINGLE_DOMAIN_TEACHER),
        "mixed_domain": (methods.MIXED_DOMAIN_DISTILLATION, methods.MIXED_DOMAIN_TEACHER),
    }
    return [
        Course(
            *names[name],
            own_domain=name == "single_domain" or settings.domain_in_teacher,
            other_domains=name == "mixed_domain",
            weighted=False,
            confusion=0.0,
            expertise=False,
            terms=terms,
        )
        for name in settings.baselines
    ]
