"""The classes of all tables, and what they are together.

A foreign key names another table, so who asks for one class gets all of them.
"""

from sqlmodel import SQLModel

from models.attempts import TaskAttempt
from models.audit import AuditEntry
from models.budgets import ProviderBudget
from models.bulk_actions import BulkAction
from models.deliveries import Delivery, DeliveryAttempt
from models.events import Event
from models.fan_outs import FanOut
from models.idempotency import IdempotencyKey
from models.installation import InstallationFact
from models.keys import ApiKey, Organization
from models.limits import LimitUse
from models.master_keys import MasterKey
from models.provider_accounts import StoredAccount
from models.receipts import Receipt
from models.replays import Replay
from models.runs import Run, RunStep
from models.sign_in_links import SignInLink
from models.statistics import DeliveryStatistic, StatisticPosition, TaskMetadataValue, TaskStatistic
from models.subscriptions import Subscription
from models.system import Alert, SystemCondition
from models.tasks import Task

metadata = SQLModel.metadata

__all__ = [
    "Alert",
    "ApiKey",
    "AuditEntry",
    "BulkAction",
    "Delivery",
    "DeliveryAttempt",
    "DeliveryStatistic",
    "Event",
    "FanOut",
    "IdempotencyKey",
    "InstallationFact",
    "LimitUse",
    "MasterKey",
    "Organization",
    "ProviderBudget",
    "Receipt",
    "Replay",
    "Run",
    "RunStep",
    "SignInLink",
    "StatisticPosition",
    "StoredAccount",
    "Subscription",
    "SystemCondition",
    "Task",
    "TaskAttempt",
    "TaskMetadataValue",
    "TaskStatistic",
    "metadata",
]
