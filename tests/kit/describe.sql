-- Everything that the extension consists of, a line each: what CREATE EXTENSION, an upgrade, a restored dump and a schema
-- that was taken over must agree in. Run with an empty search_path, so that all names are qualified.
with extension as (
  select * from pg_catalog.pg_extension where extname = 'kongtask'
),

member as (
  select depend.classid, depend.objid
  from pg_catalog.pg_depend as depend, extension
  where depend.refclassid = 'pg_catalog.pg_extension'::regclass and depend.refobjid = extension.oid and depend.deptype = 'e'
),

class as (
  select class.*, pg_catalog.acldefault((case class.relkind when 'S' then 's' else 'r' end)::"char", class.relowner) as usual_acl
  from pg_catalog.pg_class as class, member
  where member.classid = class.tableoid and member.objid = class.oid
)

select 'extension in ' || extnamespace::regnamespace from extension
union all
select concat('dumped ', config.oid::regclass, ' ', config.condition)
from extension, unnest(extension.extconfig, extension.extcondition) as config (oid, condition)
union all
select concat('member ', pg_catalog.pg_describe_object(classid, objid, 0), ': ', pg_catalog.obj_description(objid, classid::regclass::name))
from member
union all
select concat('function ', pg_catalog.pg_get_functiondef(proc.oid))
from pg_catalog.pg_proc as proc, member
where member.classid = proc.tableoid and member.objid = proc.oid
union all
select concat('rights ', pg_catalog.pg_describe_object(proc.tableoid, proc.oid, 0), ' ', proc.proacl)
from pg_catalog.pg_proc as proc, member
where member.classid = proc.tableoid and member.objid = proc.oid
union all
-- Those of the owner alone are what no rights at all mean.
select concat('rights ', class.oid::regclass, ' ', nullif(class.relacl, class.usual_acl)) from class
union all
select concat('initial rights ', pg_catalog.pg_describe_object(initial.classoid, initial.objoid, initial.objsubid), ' ', initial.initprivs)
from pg_catalog.pg_init_privs as initial, member
where
  initial.classoid = member.classid and initial.objoid = member.objid
  and not exists (select from class where class.oid = initial.objoid and class.usual_acl = initial.initprivs)
union all
select concat(class.relkind, ' ', class.oid::regclass, ' of ', class.relowner::regrole, ' rls ', class.relrowsecurity, class.relforcerowsecurity)
from class
union all
select concat('storage ', class.oid::regclass, ' ', class.reloptions, ' toast ', toast.reloptions)
from class
left join pg_catalog.pg_class as toast on class.reltoastrelid = toast.oid
union all
select concat(
    'column ', attribute.attrelid::regclass, ' ', attribute.attnum, ' ', attribute.attname, ' ',
    pg_catalog.format_type(attribute.atttypid, attribute.atttypmod), ' ', attribute.attnotnull, ' ',
    pg_catalog.pg_get_expr(default_.adbin, default_.adrelid), ' ', attribute.attstorage, ': ',
    pg_catalog.col_description(attribute.attrelid, attribute.attnum)
  )
from pg_catalog.pg_attribute as attribute
inner join pg_catalog.pg_class as of_ on attribute.attrelid = of_.oid
left join pg_catalog.pg_type as type on of_.reltype = type.oid
inner join member on (member.classid = of_.tableoid and member.objid = of_.oid) or (member.classid = type.tableoid and member.objid = type.oid)
left join pg_catalog.pg_attrdef as default_
  on attribute.attrelid = default_.adrelid and attribute.attnum = default_.adnum
where attribute.attnum > 0
union all
select concat('constraint ', constraint_.conrelid::regclass, ' ', constraint_.conname, ' ', pg_catalog.pg_get_constraintdef(constraint_.oid))
from pg_catalog.pg_constraint as constraint_, class
where constraint_.conrelid = class.oid
union all
select concat('index ', pg_catalog.pg_get_indexdef(index.indexrelid), ': ', pg_catalog.obj_description(index.indexrelid, 'pg_class'))
from pg_catalog.pg_index as index, class
where index.indrelid = class.oid
union all
select concat('trigger ', pg_catalog.pg_get_triggerdef(trigger.oid), ' ', trigger.tgenabled)
from pg_catalog.pg_trigger as trigger, class
where trigger.tgrelid = class.oid and not trigger.tgisinternal
union all
select concat('rule ', pg_catalog.pg_get_ruledef(rewrite.oid))
from pg_catalog.pg_rewrite as rewrite, class
where rewrite.ev_class = class.oid
union all
select concat('policy ', policy.polname, ' on ', policy.polrelid::regclass, ' ', policy.polcmd, policy.polpermissive, policy.polroles::text, ' ',
    pg_catalog.pg_get_expr(policy.polqual, policy.polrelid), ' ', pg_catalog.pg_get_expr(policy.polwithcheck, policy.polrelid))
from pg_catalog.pg_policy as policy, class
where policy.polrelid = class.oid
union all
select concat('sequence ', sequence.seqrelid::regclass, ' ', sequence.seqtypid::regtype, ' ', sequence.seqincrement, ' ', sequence.seqcache)
from pg_catalog.pg_sequence as sequence, class
where sequence.seqrelid = class.oid
union all
select concat('migration ', id, ' ', breaking) from @queue@.migrations
order by 1
