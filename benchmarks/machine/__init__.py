"""The machine: the databases of a run, the processors that they are placed on, and facts about it."""
