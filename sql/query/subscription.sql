-- $1: this database; $2: the table. Of pg_subscription, everybody may read these columns.
select subscription.subname::pg_catalog.text
from pg_catalog.pg_subscription as subscription
inner join pg_catalog.pg_subscription_rel as fed on subscription.oid operator(pg_catalog.=) fed.srsubid
where
  subscription.subenabled
  and subscription.subdbid operator(pg_catalog.=) $1
  and fed.srrelid operator(pg_catalog.=) $2
