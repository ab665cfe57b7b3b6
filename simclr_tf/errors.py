"""Mistakes that the user can fix, reported in one sentence."""


class UserError(Exception):
    """A mistake in the settings, the data or the disk that the user can fix.

    The message is one sentence with the numbers and the remedy. `run.py` prints it without a
    traceback and exits with code 2.
    """


class ArgumentError(UserError, ValueError):
    """An argument that a function cannot use, reported in the words of that function.

    Leaves of the package (data, losses, models) do not know the command line, so they name their
    own arguments. `run.py` translates the name into that of the flag that set it.

    Attributes:
        argument: name of the argument, as in the function's signature.
        value: what was given; None if it is missing.
        problem: what is wrong and what to give instead, as the rest of a sentence that begins
            with the argument.
    """

    def __init__(self, argument: str, value: object, problem: str) -> None:
        """Makes the message out of its three pieces."""
        self.argument, self.value, self.problem = argument, value, problem
        given = "" if value is None else f"={value!r}"
        super().__init__(f"{argument}{given} {problem}")
