"""Server-side sessions for any WSGI application, behind a signed cookie."""
