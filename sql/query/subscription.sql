-- Returns the enabled subscription that feeds a table, if there is one. Every role may read these columns.
--   $1 oid: the database
--   $2 oid: the table
select subscription.subname::pg_catalog.text
from pg_catalog.pg_subscription as subscription
inner join pg_catalog.pg_subscription_rel as fed on subscription.oid operator(pg_catalog.=) fed.srsubid
where
  subscription.subenabled
  and subscription.subdbid operator(pg_catalog.=) $1
  and fed.srrelid operator(pg_catalog.=) $2
