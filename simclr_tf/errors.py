"""What a person can get wrong, told in one sentence."""


class UserError(Exception):
    """A mistake in the settings, the data or the disk that the person running us can mend.

    The message is one sentence with the numbers and the remedy. `run.py` prints it without a
    traceback and exits with code 2.
    """
