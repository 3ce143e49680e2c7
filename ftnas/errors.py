"""What a user can get wrong. The command line turns each of these into one line and exit code 2."""


class FtnasError(Exception):
    """A mistake in what the user gave; the message names it and says what is allowed."""


class ConfigError(FtnasError):
    """A configuration file or an override is wrong."""


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
