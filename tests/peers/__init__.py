"""Other projects' own test suites, unmodified, with the sessions of prism_wsgi: `python3 dev.py peers`.

`suites.toml` says which suites there are, what is expected of each, and why a test differs. A module in `plugins/`
gives a project's applications our sessions.
"""
