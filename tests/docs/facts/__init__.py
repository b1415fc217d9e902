"""Facts of the reference pages, made from the code: each function returns the Markdown of one region."""
