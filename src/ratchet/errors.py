"""The exceptions of Ratchet.

```
RatchetError
├── InvalidInputError        a value, row or file breaks a stated rule (also a ValueError)
│   ├── PolicyError          a promotion policy does not hold together
│   └── UnequalMissingError  verdicts are missing more often in one group than in another
├── InsufficientDataError    too little data for a number to mean anything
│   └── WaitingError         what people or users have yet to give; a run goes on when it is there
├── SettingsError            environment or ratchet.toml is wrong
├── ConflictError            the same id was sent with different content
├── BusyError                another process holds what is asked for
├── WorkerLostError          the workers of one shard of a stage were killed again and again
├── LeaseLostError           another process took over what this one held
├── StoreReplacedError       the store's file was deleted, or another one has its name
├── ModelError               a language model cannot be loaded or does not answer
├── NotAnsweringError        users were to be sent to a version that does not answer
├── IsolationError           the machine does not isolate untrusted code, so none is run
├── JudgeNotUsableError      scores of a judge that validation does not allow were to count
├── SourceError              a server that rows are imported from does not answer
├── TrackingError            MLflow cannot do what is asked (no previous version, no champion)
└── LeakError                an example that the gate tests on reached a training set
```

A message holds the rule, the value received and the way out.
"""

from __future__ import annotations


class RatchetError(Exception):
    """Base of everything Ratchet raises on purpose; the CLI prints it without a traceback."""


class InvalidInputError(RatchetError, ValueError):
    """A value, row or file breaks a stated rule."""


class PolicyError(InvalidInputError):
    """A promotion policy does not hold together."""


class UnequalMissingError(InvalidInputError):
    """Verdicts are missing more often in one group than in another, which biases a comparison."""


class ContextLengthError(InvalidInputError):
    """A conversation leaves no room for an answer in the model's context."""


class InsufficientDataError(RatchetError):
    """Too little data for a number to mean anything."""


class WaitingError(InsufficientDataError):
    """What people or users have yet to give: a flow run ends waiting and goes on later.

    Attributes:
        what: "labels" of people, or "traffic" of users.
        missing: How many; None where that is not known.
        judge: The judge whose own labels they are; None for any other.
    """

    def __init__(
        self,
        message: str,
        what: str = "labels",
        missing: int | None = None,
        judge: str | None = None,
    ) -> None:
        super().__init__(message)
        self.what, self.missing, self.judge = what, missing, judge

    def __reduce__(self) -> tuple[type[WaitingError], tuple[str, str, int | None, str | None]]:
        """Keep all of it where a process hands it to another."""
        return type(self), (str(self), self.what, self.missing, self.judge)


class SettingsError(RatchetError):
    """The environment or ratchet.toml is wrong."""


class ConflictError(RatchetError):
    """The same id was sent with different content."""


class BusyError(RatchetError):
    """Another process holds what is asked for."""


class WorkerLostError(RatchetError):
    """The workers of one shard were killed again and again; the others' results were kept.

    Attributes:
        shard: The place of the shard among those that were run.
    """

    def __init__(self, message: str, shard: int | None = None) -> None:
        super().__init__(message)
        self.shard = shard


class LeaseLostError(RatchetError):
    """Another process took over what this one held and did not renew in time."""


class StoreReplacedError(RatchetError):
    """The store's file was deleted while it was in use, or another one has its name."""


class ModelError(RatchetError):
    """A language model cannot be loaded or does not answer."""


class NotAnsweringError(RatchetError):
    """Users were to be sent to a version that does not answer."""


class IsolationError(RatchetError):
    """The machine does not isolate untrusted code, so none is run."""


class JudgeNotUsableError(RatchetError):
    """Scores of a judge that validation does not allow were to count."""


class SourceError(RatchetError):
    """A server that rows are imported from does not answer, or asks to wait for long."""


class TrackingError(RatchetError):
    """MLflow cannot do what is asked."""


class LeakError(RatchetError):
    """An example that the gate tests on reached a training set."""
