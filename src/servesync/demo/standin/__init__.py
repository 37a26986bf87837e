"""A stand-in for tensorflow_model_server: the same scanning, the same states, the same REST answers.

It exists for machines without the real server, and loads models with TensorFlow's Python package. What it
imitates was read from TensorFlow Serving's source; names of its classes are given where rules come from.
"""
