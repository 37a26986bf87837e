"""The methods by which the model server is asked for an answer."""

from enum import StrEnum


class Method(StrEnum):
    """A method, by the word that ends the path of its REST requests."""

    PREDICT = "predict"
    CLASSIFY = "classify"
    REGRESS = "regress"
