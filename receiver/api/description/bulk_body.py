"""The body of a bulk create, whose tasks are checked one by one (`receiver.api.bulk`)."""

from typing import Annotated

from pydantic import BaseModel, Field

from receiver.api.bulk import MOST_TASKS
from receiver.api.schemas import CreateTask


class CreateTasksBody(BaseModel):
    """`POST /api/v1/tasks`: tasks, each of which is accepted or refused by itself."""

    tasks: Annotated[list[CreateTask], Field(min_length=1, max_length=MOST_TASKS)]
