"""Model files of other programs: in as a pack, and a pack out as a Keras file. Nothing of such a file is ever run.

A file is read as numbers and as a description (JSON); the network is built from our registry, and only where the description
fits it. So a file with code in it is refused, and not trusted to hold it back.
"""

from __future__ import annotations
