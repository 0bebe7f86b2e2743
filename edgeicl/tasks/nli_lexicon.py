"""The words of the built-in task family, grouped by what its sentences need from them.

All verbs are regular in the past tense, so one form serves active and passive sentences.
"""

from __future__ import annotations

PEOPLE = ("doctor", "pilot", "clerk", "judge", "baker", "nurse", "farmer", "singer")
ANIMALS = ("dog", "cat", "horse", "goat", "fox", "wolf", "crow", "duck")
NOUNS = PEOPLE + ANIMALS
HYPERNYM = {noun: "person" for noun in PEOPLE} | {noun: "animal" for noun in ANIMALS}

ACTION_TRANSITIVE = ("chased", "pushed", "pulled", "kicked")
CALM_TRANSITIVE = ("watched", "noticed", "admired", "trusted")
TRANSITIVE = ACTION_TRANSITIVE + CALM_TRANSITIVE

ACTION_INTRANSITIVE = ("jumped", "danced", "climbed", "raced")
CALM_INTRANSITIVE = ("rested", "waited", "dreamed", "listened")
INTRANSITIVE = ACTION_INTRANSITIVE + CALM_INTRANSITIVE

ACTIONS = frozenset(ACTION_TRANSITIVE + ACTION_INTRANSITIVE)

ADJECTIVES = ("old", "young", "tall", "brave", "quiet", "clever")
PLACES = ("garden", "kitchen", "barn", "street", "forest", "office")
TIMES = ("today", "yesterday")
