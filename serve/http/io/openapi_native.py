"""Our own routes, as paths of the OpenAPI document."""

from __future__ import annotations

from serve.http.io.openapi_parts import Json, encoding, image_body, operation, parameter, ref


def native_paths(names: list[str]) -> Json:
    """Return the paths of our own routes; `names` are what the served models answer to."""
    model = parameter("model", "query", {"enum": names}, "One of several models; the first when absent")
    item = [parameter("id", "path", {"type": "string", "minLength": 1, "maxLength": 1024}, "The item's id")]
    return {
        "/embed": {
            "post": operation(
                "Embed images",
                "One answer or one error per image, in order. Ask for another form with Accept "
                "(application/vnd.apache.arrow.stream, application/x-npz) or with encoding_format=base64.",
                "curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' $URL/embed",
                ok={
                    "application/json": ref("EmbedAnswer"),
                    "application/vnd.apache.arrow.stream": {"type": "string", "format": "binary"},
                    "application/x-npz": {"type": "string", "format": "binary"},
                },
                body=image_body(ref("EmbedRequest")),
                parameters=[encoding(), model],
                errors=("400", "401", "404", "408", "413", "415", "422", "429", "503", "504"),
            )
        },
        "/search": {
            "post": operation(
                "Search with images or Gaussians",
                "Images as in /embed, or the mean and variance of earlier answers. A query above "
                "max_uncertainty gets no neighbours.",
                "curl --data-binary @photo.jpg '$URL/search?k=5'",
                ok={"application/json": ref("SearchAnswer")},
                body=image_body(ref("SearchRequest")),
                parameters=[
                    parameter(
                        "k", "query", {"type": "integer", "minimum": 1, "maximum": 1000, "default": 10}, ""
                    ),
                    parameter("distance", "query", {"type": "string"}, "The gallery's own when absent"),
                    parameter("max_uncertainty", "query", {"type": "number"}, "Bound on uncertainty"),
                    parameter("filter", "query", {"type": "string"}, 'JSON, for example {"label": "cat"}'),
                ],
                errors=("400", "401", "404", "408", "409", "413", "415", "422", "429", "503", "504"),
            )
        },
        "/gallery": {
            "get": operation(
                "Describe the gallery",
                "Size, distance, model id.",
                "curl $URL/gallery",
                ok={"application/json": {"type": "object"}},
                errors=("401", "404"),
            )
        },
        "/gallery/{id}": {
            "parameters": item,
            "get": operation(
                "Read an item",
                "Its label and Gaussian.",
                "curl $URL/gallery/cats/1.jpg",
                ok={"application/json": ref("Item")},
                parameters=[encoding()],
                errors=("400", "401", "404"),
            ),
            "put": operation(
                "Add or replace an item",
                "Embeds the image of the body. The answer means that it is on the disk.",
                "curl -X PUT --data-binary @photo.jpg '$URL/gallery/cats/1.jpg?label=cat'",
                ok={"application/json": ref("Written")},
                body=image_body(ref("PutRequest")),
                parameters=[parameter("label", "query", {"type": "string"}, "The item's label")],
                errors=("400", "401", "404", "408", "413", "415", "422", "429", "503", "504"),
                created=True,
            ),
            "delete": operation(
                "Remove an item",
                "The answer means that it is gone from the disk.",
                "curl -X DELETE $URL/gallery/cats/1.jpg",
                ok={"application/json": {"type": "object"}},
                errors=("400", "401", "404"),
            ),
        },
        "/thumbnails/{id}": {
            "parameters": item,
            "get": operation(
                "A small JPEG of an item",
                "Only when the operator allows it (--show-images).",
                "curl $URL/thumbnails/cats/1.jpg",
                ok={"image/jpeg": {"type": "string", "format": "binary"}},
                errors=("400", "401", "403", "404"),
            ),
        },
        "/model": {
            "get": operation(
                "The model card",
                "What the model is, its id, the other models, the accepted formats and the limits.",
                "curl $URL/model",
                ok={"application/json": {"type": "object"}},
                parameters=[model],
                errors=("401", "404"),
            )
        },
        "/livez": {
            "get": operation(
                "Alive",
                "The process answers.",
                "curl $URL/livez",
                ok={"application/json": {"type": "object"}},
            )
        },
        "/readyz": {
            "get": operation(
                "Ready",
                "Every model answers its golden pair.",
                "curl $URL/readyz",
                ok={"application/json": {"type": "object"}},
                errors=("503",),
            )
        },
        "/metrics": {
            "get": operation(
                "Prometheus metrics",
                "Requests, stages in seconds, batch sizes, queue, uncertainty.",
                "curl $URL/metrics",
                ok={"text/plain": {"type": "string"}},
                errors=("401",),
            )
        },
    }
