"""Studies: experiments that a file describes, as cells, runs and verdicts.

A study has axes. A cell is one value of each axis, and is trained once for each seed. Each of these
trainings is a run directory of the same program, so that it can be repeated by hand.
"""
