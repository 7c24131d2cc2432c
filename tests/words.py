"""The vocabulary that the models of the tests know."""

from openvis_model.vocabulary import prompt_words

NAMES = ("red striped star", "blue plain disc", "green dotted ring")
WORDS = prompt_words(NAMES)
