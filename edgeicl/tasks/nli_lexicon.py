"""The words of the built-in task family, grouped by what its sentences need from them.

All verbs are regular in the past tense, so one form serves active and passive sentences.
"""

from __future__ import annotations

PEOPLE = ("doctor", "pilot", "clerk", "judge", "baker")
ANIMALS = ("dog", "cat", "horse", "goat", "fox")
NOUNS = PEOPLE + ANIMALS
HYPERNYM = dict.fromkeys(PEOPLE, "person") | dict.fromkeys(ANIMALS, "animal")

ACTION_TRANSITIVE = ("chased", "pushed", "pulled")
CALM_TRANSITIVE = ("watched", "noticed", "admired")
TRANSITIVE = ACTION_TRANSITIVE + CALM_TRANSITIVE

ACTION_INTRANSITIVE = ("jumped", "danced", "climbed")
CALM_INTRANSITIVE = ("rested", "waited", "dreamed")
INTRANSITIVE = ACTION_INTRANSITIVE + CALM_INTRANSITIVE

ACTIONS = frozenset(ACTION_TRANSITIVE + ACTION_INTRANSITIVE)

ADJECTIVES = ("old", "young", "tall", "brave")
PLACES = ("garden", "kitchen", "barn", "street")
TIMES = ("today", "yesterday")
