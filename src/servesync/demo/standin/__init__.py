"""A stand-in for tensorflow_model_server: the same scanning, the same states, the same REST answers.

It exists for machines without the real server, and loads models with TensorFlow's Python package. Its rules
were read from TensorFlow Serving's source; each module names the classes from which its rules come.
"""
