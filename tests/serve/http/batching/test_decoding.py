"""Large images are decoded in another process: the same pixels, the same errors, and it may be ended at any time."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator

import numpy as np
import psutil
import pytest
from PIL import Image

from serve.http.batching.decoding import Decoder, LargeImageError, thumbnail_jpeg
from tests.serve.running import command_line, until
from vssl.errors import ImageError
from vssl.images.decode import DecodeLimits
from vssl.images.preprocess import Preprocess, load_image

RECIPE = Preprocess(size=32, resize=32)
LIMITS = DecodeLimits(max_pixels=64_000_000)


def encoded(form: str, width: int, height: int) -> bytes:
    """Return an image of two halves, so that its pixels say whether it was decoded."""
    image = Image.new("RGB", (width, height), (200, 30, 90))
    image.paste((10, 220, 40), (0, 0, width // 2, height))
    sink = io.BytesIO()
    image.save(sink, form, **({"method": 0, "quality": 5} if form == "WEBP" else {}))
    return sink.getvalue()


def started_processes() -> list[psutil.Process]:
    """Return the processes that decode large images here."""
    found = psutil.Process().children()
    return [one for one in found if any("decoding.answer" in part for part in command_line(one))]


def suspend(process: psutil.Process) -> None:
    """Stop a process, and wait until it has stopped."""
    process.suspend()
    until(lambda: process.status() == psutil.STATUS_STOPPED)


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    made = Decoder(LIMITS)
    yield made
    made.close()
    assert not started_processes()


@pytest.fixture(scope="module")
def webp() -> bytes:
    return encoded("WEBP", 2100, 2000)


@pytest.mark.parametrize(
    ("form", "width", "height", "is_large"),
    [
        ("WEBP", 1900, 2000, False),
        ("WEBP", 2100, 2000, True),
        ("PNG", 3900, 4000, False),
        ("PNG", 4100, 4000, True),
        ("JPEG", 4100, 4000, False),  # is decoded at a reduced size
    ],
)
def test_what_would_hold_the_lock_for_long_is_not_decoded_here(
    decoder: Decoder, form: str, width: int, height: int, is_large: bool
) -> None:
    data = encoded(form, width, height)
    if is_large:
        with pytest.raises(LargeImageError):
            decoder.here(load_image, data, RECIPE)
    else:
        assert decoder.here(load_image, data, RECIPE).shape == (32, 32, 3)
    found = decoder.anywhere(load_image, data, RECIPE, seconds=60)
    np.testing.assert_array_equal(found, load_image(data, RECIPE, LIMITS))
    assert bool(started_processes()) == is_large


def test_beyond_the_servers_own_bound_it_is_refused_at_once(webp: bytes) -> None:
    small = Decoder(DecodeLimits(max_pixels=1_000_000))
    with pytest.raises(ImageError) as told:
        small.anywhere(load_image, webp, RECIPE, seconds=60)
    assert told.value.code == "too_many_pixels"
    assert not started_processes()


def test_errors_come_back_as_they_are(decoder: Decoder, webp: bytes) -> None:
    with pytest.raises(ImageError) as told:
        decoder.anywhere(load_image, webp[: len(webp) // 2], RECIPE, seconds=60)
    assert told.value.code == "undecodable"
    assert decoder.aside(load_image, webp, RECIPE, seconds=60).shape == (32, 32, 3)


def test_thumbnails_are_made_there_too(decoder: Decoder, webp: bytes) -> None:
    made = decoder.anywhere(thumbnail_jpeg, webp, 64, seconds=60)
    assert max(Image.open(io.BytesIO(made)).size) == 64


def test_after_its_time_the_process_is_ended_and_the_next_image_has_another(
    decoder: Decoder, webp: bytes
) -> None:
    decoder.aside(load_image, webp, RECIPE, seconds=60)
    (first,) = started_processes()
    suspend(first)  # a decoder that never ends
    with pytest.raises(TimeoutError):
        decoder.aside(load_image, webp, RECIPE, seconds=0.05)
    assert not started_processes()
    assert decoder.aside(load_image, webp, RECIPE, seconds=60).shape == (32, 32, 3)


def test_a_process_that_is_killed_lacked_memory_and_one_that_crashes_had_a_bad_image(
    decoder: Decoder, webp: bytes
) -> None:
    for end, expected in ((psutil.Process.kill, MemoryError), (psutil.Process.terminate, ImageError)):
        decoder.aside(load_image, webp, RECIPE, seconds=60)
        (process,) = started_processes()
        suspend(process)
        errors: list[BaseException] = []

        def ask(errors: list[BaseException] = errors) -> None:
            try:
                decoder.aside(load_image, webp, RECIPE, seconds=60)
            except (MemoryError, ImageError) as error:
                errors.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        end(process)
        if end is psutil.Process.terminate:  # waits for a suspended process to go on; SIGKILL does not
            process.resume()
        asking.join()
        assert isinstance(errors[0], expected)
        until(lambda: not started_processes())
    assert decoder.aside(load_image, webp, RECIPE, seconds=60).shape == (32, 32, 3)
