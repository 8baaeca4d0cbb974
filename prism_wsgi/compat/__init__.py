"""For applications that come from elsewhere: other packages' interfaces, and the cookies that their visitors hold.

Each module is imported by its own name; all of them save, sign and set cookies through SessionMiddleware.
"""
