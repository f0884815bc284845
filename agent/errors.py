"""What can go wrong outside the stored files and the databases, each with a code, a sentence and a remedy.

Raises nothing itself. ConfigError is the family that ends the program.
"""

from __future__ import annotations

from storage.errors import CodedError

_SAID_CHARACTERS = 500  # of what a backend says of its trouble


class ConfigError(CodedError):
    """The configuration cannot be used."""

    code = "CF-01"
    remedy = "The README lists every key."


class ConfigMissing(ConfigError):
    """The configuration file cannot be read."""

    code = "CF-02"
    remedy = "`python -m agent init` makes one; or copy config.example.json to config.json, or name it with --config."


class ConfigMalformed(ConfigError):
    """The configuration file is no valid JSON."""

    code = "CF-03"
    remedy = "Correct that place; every key and string stands in double quotes, and no comma follows the last entry."


class DemoMissing(CodedError):
    """The demonstration needs the extra package `demo`."""

    code = "CF-04"
    remedy = "Run scripts/demo, which installs it, or in the repository: pip install '.[demo]'"


class ConfigUnwritable(ConfigError):
    """The configuration file cannot be written."""

    code = "CF-05"
    remedy = "Name another one with --config, or run this as the owner of the file and its directory."


class ConfigThere(ConfigError):
    """There is a configuration file already."""

    code = "CF-06"
    remedy = "Say --force to put a new one in its place, or name another one with --config."


class RegistrationRefused(CodedError):
    """The backend does not register this collector."""

    code = "RG-01"
    remedy = "Check the token, the team and the name; the backend's administrator knows who may register."


class AgentSilent(CodedError):
    """The agent that holds this data directory does not say how it is."""

    code = "AG-01"
    remedy = "Ask as its user or root. When it stays silent, look at its log, and restart it: nothing is lost by that."


class BackendAway(CodedError):
    """The backend cannot be reached.

    `may_have_arrived`: something was sent before it failed, so nobody knows what the backend did with it.
    """

    code = "BE-01"
    remedy = "The agent keeps trying and everything waits in the outbox; check backend_url and the network."
    at_most = _SAID_CHARACTERS

    def __init__(self, detail: str = "", *, may_have_arrived: bool = False) -> None:
        super().__init__(detail)
        self.may_have_arrived = may_have_arrived


class KeyRefused(CodedError):
    """The backend does not accept the API key."""

    code = "BE-02"
    remedy = "Check api_key and collector_id, or register the collector again; everything waits in the outbox."


class NotTheBackend(CodedError):
    """What answers at backend_url is not the DBPower backend."""

    code = "BE-03"
    remedy = "Check backend_url and proxies (a captive portal answers like this); everything waits in the outbox."


class BodyRefused(CodedError):
    """The backend refuses bodies, the good ones too."""

    code = "BE-04"
    remedy = "Check the versions of backend and agent; everything waits in the outbox."


class BackendBusy(CodedError):
    """The backend asks to wait or fails."""

    code = "BE-05"
    remedy = "The agent keeps trying and everything waits in the outbox; check the backend's logs."


class BackendUntrusted(BackendAway):
    """The backend's certificate is not trusted."""

    code = "BE-06"
    remedy = "Name its authority's PEM file in tls.ca, or correct the certificate; everything waits in the outbox."


class BackendWithoutTls(BackendAway):
    """No TLS connection to the backend comes about."""

    code = "BE-08"
    remedy = "Check backend_url, tls.ca, tls.cert and tls.key; everything waits in the outbox."


class CommandRefused(CodedError):
    """A command of the backend cannot be carried out."""

    code = "CM-01"
    remedy = "The result that goes back to the backend says why."
    at_most = 1_000


class RemoteChangesUnusable(CodedError):
    """What the backend had changed cannot be used any more, and is left out."""

    code = "CM-02"
    remedy = "The agent runs as its own configuration says; the file is kept beside. Let the backend send it again."
    at_most = 1_000


class LedgerUnusable(CodedError):
    """The ledger of a replay, which remembers what was accepted, cannot be used."""

    code = "RP-01"
    remedy = "Name a place for it with --ledger, on a disk with room; nothing was sent that is not in it."


class ReplayRefused(CodedError):
    """The replay cannot do that."""

    code = "RP-02"
    remedy = "Copy the data directory and replay the copy, or stop the agent; `--help` shows what else is needed."


class ReplayGivenUp(CodedError):
    """The backend takes nothing."""

    code = "RP-03"
    remedy = "Nothing was lost: when that is mended, the same command goes on from here."


class CanaryLost(CodedError):
    """The marked statement did not get on in time."""

    code = "CA-02"
    remedy = "The lines above say what may hold it up; run `doctor --canary` again when they are mended."


class ClockOff(CodedError):
    """This host's clock is not the other side's."""

    code = "HO-01"
    remedy = "Let a time service set both; ages and start times are wrong by so much, and nothing is lost by it."


class FilesExposed(CodedError):
    """Other users of this host can read or change what belongs to the agent."""

    code = "HO-02"
    remedy = "chmod 700 the directory and 600 the file; the owner should be the agent's user."


class AgentDown(CodedError):
    """No agent runs on this data directory."""

    code = "AG-02"
    remedy = "Start it: `systemctl start dbpower-collector`, or `python -m agent`."


class BackendPlain(CodedError):
    """What goes to the backend is not encrypted on its way, the API key neither."""

    code = "BE-07"
    remedy = "Use an https:// address in backend_url."


class BackendUnverified(CodedError):
    """Nobody knows whether it is the backend that is spoken to."""

    code = "BE-09"
    remedy = "Name its authority with tls.ca and leave tls.verify at true."
