"""What is asked of a gallery and what it answers with: filters, metadata, results."""
