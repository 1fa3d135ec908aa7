delete from @extschema@.jobs
