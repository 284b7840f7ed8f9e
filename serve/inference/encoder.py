"""A model and images in any form -> batches of Gaussians: what Python programs and `vssl search` embed with.

Shape letters: M images embedded, D embedding dimension, S side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from serve.inference.embedded import EmbeddedImages
from serve.inference.engine import Engine
from vssl.embeddings.batch import Embedded, Failed
from vssl.errors import ImageError, require_whole
from vssl.images.image_like import ImageLike, image_bytes, image_list, image_name
from vssl.images.items import ImageItem, ImageSource
from vssl.images.preprocess import Pixels, load_image
from vssl.images.sources import open_source
from vssl.model.card import ModelCard

AT_ONCE = 64  # images decoded before they go through the model


class ListedImages:
    """Images given one by one, as a source; each is named by its path or its position."""

    def __init__(self, images: Sequence[ImageLike]) -> None:
        self._images = images
        names = [image_name(image, number) for number, image in enumerate(images)]
        self.items = [ImageItem(name, None, name) for name in names]

    def read(self, row: int) -> bytes:
        """Return the encoded bytes; raises InputError where a path or an array is no image."""
        return image_bytes(self._images[row])


class Encoder:
    """A loaded model that embeds images; every method may be called from any thread."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @property
    def card(self) -> ModelCard:
        """What the model says about itself."""
        return self.engine.card

    @property
    def model_id(self) -> str:
        """The sha256 of the model file."""
        return self.engine.model_id

    def embed(self, images: str | Path | Iterable[ImageLike]) -> Embedded:
        """Embed images; those that cannot be read are in `failures`, the others in order.

        images: a source (a folder, an image file, `list:FILE` ...: `vssl.images.sources`), or a list or generator of
            paths, file bytes, uint8 arrays (H, W, 3) and Pillow pictures.
        Raises InputError for a source or a listed path that is not there, for an array of another form, and
        for one picture outside of a list.
        """
        return Embedded.concatenate(
            list(self.batches(images)) or [self._embedded([], self.engine.embed_pixels([]), 0)]
        )

    def batches(self, images: str | Path | Iterable[ImageLike], size: int = AT_ONCE) -> Iterator[Embedded]:
        """Embed as `embed` does, and yield `size` images at a time."""
        require_whole(size=size)
        source: ImageSource = (
            open_source(images) if isinstance(images, str | Path) else ListedImages(image_list(images))
        )
        for start in range(0, len(source.items), size):
            pixels: list[Pixels | ImageError] = []
            for row in range(start, min(start + size, len(source.items))):
                try:
                    pixels.append(load_image(source.read(row), self.card.preprocess))
                except ImageError as error:
                    pixels.append(error)
            yield self._embedded(source.items[start : start + size], self.engine.embed_pixels(pixels), start)

    def _embedded(self, items: Sequence[ImageItem], answers: EmbeddedImages, start: int) -> Embedded:
        """Take the answers to images `start` and on apart: those embedded, and those that failed."""
        kept = answers.embedded
        return Embedded(
            [items[place].id for place in kept],
            np.array(kept, np.int64) + start,
            answers.gaussians,
            [Failed(start + n, items[n].path, e.code, str(e)) for n, e in sorted(answers.errors.items())],
            self.model_id,
            self.card,
            [items[place].path for place in kept],
            [items[place].label for place in kept],
            answers.features[kept],
        )

    def close(self) -> None:
        """Let go of connections; the encoder is not used again."""
        self.engine.close()

    def __enter__(self) -> Encoder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
