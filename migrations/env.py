"""Alembic's way in; what happens is in prism_wsgi/migrate.py."""

from prism_wsgi import migrate

migrate.run()
