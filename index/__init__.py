"""embeddings -> gallery: search with variance scores, and evaluation.

FAISS's OpenMP threads spin while they wait unless told otherwise before they are loaded, which
only this module can do. On two shared cores, waiting asleep made a test run of index builds and
searches 4 times faster; a variable that is set already is left alone.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
