"""An image source -> decoded images in memory or mapped, split, and served in batches."""
