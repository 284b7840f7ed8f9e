"""The routes of a gallery: its items one by one, all of them as columns, pictures, and what to look at."""
