"""Which campaigns there are, and how many rounds each has in a quick and in a whole proof."""

from tests.prove.campaign import Campaign
from tests.prove.faults import kills

CAMPAIGNS: tuple[Campaign, ...] = (
    Campaign(name="kills", what="`kill -9` at random moments", fault=kills.kill_at_random),
    Campaign(name="crash-points", what="`kill -9` at named points of the work", fault=kills.kill_at_points),
)
