"""Providers that are described by a TOML file, without code.

`file_form` says what a file may have, `reading` reads and checks one, `api` makes an `API` of it, `files` finds the
files, and `cases` runs one against recorded exchanges. The keys are explained in `deploy/guides/add-a-provider.md`.
"""
