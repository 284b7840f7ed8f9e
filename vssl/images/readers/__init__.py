"""One reader a kind of source: files on disk, tar shards, object stores, and data sets as their makers publish them."""
