"""One reader for each format in which pathologists' viewers save what was drawn; `annotations.py` chooses."""
