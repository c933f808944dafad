"""A network as a web server: a page, and answers in JSON."""
