-- Returns all pauses: the task, the queue, and the end of each.
select pauses.task, pauses.queue_name, pauses.until
from kongtask.pauses
