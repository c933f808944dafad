"""The `rmjax` command: thin functions from options to the library."""
