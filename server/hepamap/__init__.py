"""hepamap: hepatocellular carcinoma on H&E whole-slide images, shown where a pathologist works."""

__version__ = "0.1.0"

RESEARCH_USE_ONLY = "For Research Use Only. Not for use in diagnostic procedures."
