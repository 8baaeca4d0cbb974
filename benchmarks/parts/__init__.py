"""The parts of a run, a module each under the part's name."""
