"""What a user can get wrong. The command line turns each of these into one line and exit code 2."""

LONGEST = 1500  # characters of a line


def one_line(text: str) -> str:
    """Return ``text`` as one line that is safe to show.

    Names out of files may hold anything, such as what moves a terminal's cursor: it becomes a question mark.
    """
    plain = "".join(letter if letter.isprintable() else " " if letter in "\n\r\t" else "?" for letter in text.strip())
    cut = LONGEST // 2 - 3  # of one that is too long the middle goes: what is wrong stands at its ends
    return plain if len(plain) <= LONGEST else f"{plain[:cut]} ... {plain[-cut:]}"


class FtnasError(Exception):
    """A mistake in what the user gave; the message, one line of plain text, names it and says what is allowed."""

    has_lines = False  # whether the message may have several, one for each mistake

    def __init__(self, message: str = "") -> None:
        lines = message.split("\n") if self.has_lines else [message]
        super().__init__("\n".join(map(one_line, lines)))


class ConfigError(FtnasError):
    """A configuration file or an override is wrong: a line for each mistake."""

    has_lines = True


class SpaceError(FtnasError):
    """A search space, or a genotype for it, is impossible."""


class DataError(FtnasError):
    """A data set is missing, truncated or of the wrong shape."""


class FaultError(FtnasError):
    """A fault model, rate, site pattern or plan is impossible."""


class RunError(FtnasError):
    """A run folder does not belong to this configuration, or is unreadable."""


class CampaignError(FtnasError):
    """A campaign's plan, statistics or results file is impossible."""


class ExportError(FtnasError):
    """A net cannot be written in a format, or the file that was written is not equal to it."""


class ModelError(FtnasError):
    """A model file of the user's is damaged, of an unknown kind, or computes what ftnas cannot read."""


class TrainingError(FtnasError):
    """A training cannot go on with the numbers that it was given."""


class HardeningError(FtnasError):
    """A trained net cannot be analysed or hardened as asked."""


class SpikingError(FtnasError):
    """A spiking net, its file or its task is impossible."""


class LaunchError(FtnasError):
    """Trainings cannot be launched on a training service, or some that were failed."""
