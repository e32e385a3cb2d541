"""Which campaigns there are, and how many rounds of faults each has in a quick proof and in a whole one."""

from tests.prove.campaign import Campaign
from tests.prove.faults import (
    clocks,
    combined,
    commits,
    disk,
    foreign,
    frozen,
    kills,
    provider,
    restarts,
    subscribers,
)
from tests.prove.mutants.catalogue import MUTANTS
from tests.prove.stores import Kind

__all__ = ["CAMPAIGNS", "MUTANTS", "QUICK_CAMPAIGNS", "QUICK_MUTANTS"]

CAMPAIGNS: tuple[Campaign, ...] = (
    Campaign(
        name="kills",
        what="`kill -9` at random moments; the service is started again",
        fault=kills.kill_at_random,
        rounds=(3, 12),
    ),
    Campaign(
        name="crash-points",
        what="`kill -9` at eleven named points between a request, its commit and its answer",
        fault=kills.kill_at_points,
        rounds=(3, 14),
    ),
    Campaign(
        name="rolling-restarts",
        what="SIGTERM and a new start of each process in turn",
        fault=restarts.roll,
        rounds=(1, 4),
    ),
    Campaign(
        name="database-restarts",
        what="PostgreSQL stops, also without a checkpoint as in a power cut, and starts again",
        fault=restarts.restart_database,
        kinds=("postgresql",),
        rounds=(2, 8),
    ),
    Campaign(
        name="forgetful-database",
        what="power cuts of a PostgreSQL whose default is to answer before a commit is on disk",
        fault=restarts.restart_forgetful_database,
        kinds=("postgresql",),
        rounds=(2, 8),
    ),
    Campaign(
        name="frozen",
        what="SIGSTOP of a process, on PostgreSQL for longer than its leases last while another process goes on",
        fault=frozen.freeze,
        rounds=(1, 4),
    ),
    Campaign(
        name="commits",
        what="connections to PostgreSQL cut at COMMIT, before or after the server has it, and COMMITs held for seconds",
        fault=commits.meet,
        kinds=("postgresql",),
        meets_commits=True,
        rounds=(2, 8),
    ),
    Campaign(
        name="webhooks",
        what="webhooks of the provider lost, doubled, out of order, late, repeated seconds later, and forged",
        fault=provider.spoil_webhooks,
        rounds=(2, 6),
    ),
    Campaign(
        name="provider",
        what="a provider that answers with errors (also after it made the task), 429, cuts and silence, and outages",
        fault=provider.spoil_answers,
        rounds=(2, 6),
    ),
    Campaign(
        name="subscribers",
        what="subscribers that answer with errors, redirects, cuts, late or never, and one that is gone",
        fault=subscribers.spoil_answers,
        rounds=(2, 6),
    ),
    Campaign(
        name="full-disk",
        what="SQLite's files cannot grow for seconds",
        impossible=disk.IMPOSSIBLE,
        fault=disk.fill,
        kinds=("sqlite",),
        rounds=(2, 8),
    ),
    Campaign(
        name="clocks",
        what="the wall clock of a process steps by 40 s, 15 min and an hour, forward and back",
        fault=clocks.step,
        rounds=(2, 8),
    ),
    Campaign(
        name="foreign",
        what="others hold locks and open transactions on the database for seconds",
        fault=foreign.interfere,
        rounds=(2, 8),
    ),
    Campaign(
        name="combined",
        what="kills, bad weather on both sides and foreign locks at once; on PostgreSQL also restarts and cut COMMITs",
        fault=combined.combine,
        meets_commits=True,
        rounds=(1, 4),
    ),
)

QUICK_CAMPAIGNS: frozenset[tuple[str, Kind]] = frozenset(
    {("combined", "sqlite"), ("commits", "postgresql"), ("kills", "sqlite")}
)
"""What a quick proof always has; besides, one more campaign on each database, which the seed decides."""
QUICK_MUTANTS = 4
"""How many mutants a quick proof has, which the seed decides."""
