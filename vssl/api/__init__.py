"""The Python API: what `import vssl` offers, and what the command line calls.

    encoder = vssl.load()                                  # or vssl.load("model.onnx")
    photos = encoder.embed("photos/")                      # names, mean, variance, uncertainty
    with vssl.Gallery.create("gallery", photos) as gallery:
        answers = gallery.search(encoder.embed(["query.jpg"]), k=5)

Each function imports the packages that it needs when it is called: loading a model needs no torch.
"""

from vssl.api.functions import export, extract, load, train
from vssl.api.gallery import Gallery
from vssl.api.own_packages import find_own_packages

find_own_packages()

__all__ = ["Gallery", "export", "extract", "load", "train"]
