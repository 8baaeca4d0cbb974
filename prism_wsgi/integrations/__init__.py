"""What fits prism_wsgi to each framework; a framework is imported in its own module only.

Sessions are saved by SessionMiddleware, whatever the framework: an integration puts one around the application
and hands out the session under the framework's own name.
"""
