"""Migration from other packages: Beaker's interface, and imports of stored sessions.

Import each module by its name. All of them save sessions and set cookies through SessionMiddleware.
"""
