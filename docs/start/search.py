"""From a folder of photos to a search: python docs/start/search.py PHOTOS QUERY."""

import sys

import vssl

photos, query = sys.argv[1:3]
encoder = vssl.load()  # the photo encoder that comes with vssl; or vssl.load("model.onnx")
embedded = encoder.embed(photos)
print(f"{len(embedded)} images embedded, {len(embedded.failures)} could not be read")
print("mean", embedded.mean.shape, "variance", embedded.variance.shape)
least, most = embedded.uncertainty.argsort()[[0, -1]]
print("surest:", embedded.names[least], "least sure:", embedded.names[most])

with vssl.Gallery.create("python-gallery", embedded) as gallery:
    for answer in gallery.search(encoder.embed([query]), k=5):
        print(f"{query}: uncertainty {answer.uncertainty:.3f}")
        for found in answer.neighbours:
            print(f"  {found.distance:.4f}  {found.id}  {found.label}")
