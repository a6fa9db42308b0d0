"""From annotated slides to a model pack: annotations, patches, data sets, recipes, training.

Importing this package does not import keras; `train` does, when it is called.
"""
