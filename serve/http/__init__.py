"""The HTTP side: requests -> clean uint8 tensors -> one batch -> one answer or error per image."""
