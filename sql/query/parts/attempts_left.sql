-- max_attempts of a job after a failed attempt. $4: that of its task, or NULL. The attempt that reaches it is the job's last,
-- which the row says as it does of any job that has failed for good: attempts have reached max_attempts. Until then the row
-- keeps its own number, so that a greater one of the task concerns the job too.
case
  when @this_attempt@ operator(pg_catalog.>=) $4
    then
      least(jobs.max_attempts, @this_attempt@)
  else jobs.max_attempts
end
