"""hepamap: hepatocellular carcinoma on H&E whole-slide images, shown where a pathologist works."""

import os
import platform

__version__ = "0.1.0"

RESEARCH_USE_ONLY = "For Research Use Only. Not for use in diagnostic procedures."

# What a network answers must not depend on which of our modules imports keras first: TensorFlow reads this once, then.
# By itself it takes oneDNN's convolutions only where a processor has AVX-512; with AVX2 they are faster, too.
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if platform.machine() == "x86_64":
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
