"""Request bodies -> images, and answers -> bodies."""
