"""Pytest plugins that other projects' suites are run with.

This folder is put on the path of those suites, which have a package `tests` of their own: the modules import each
other by their bare names.
"""
