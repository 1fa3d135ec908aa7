-- $1: a schedule; $2: the jobs that were added; $3, $4: how many runs were missed and skipped; $5: up to when, NULL: none was;
-- $6: what is wrong, NULL: nothing; $7: whether earlier jobs that are unfinished must still be known.
with unfinished as materialized (
