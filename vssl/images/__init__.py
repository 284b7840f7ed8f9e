"""A folder, archive, data set or URL -> images with ids and labels -> checked uint8 pictures."""
