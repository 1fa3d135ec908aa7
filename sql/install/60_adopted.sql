-- The rights that are kept where tables were taken over. They are no part of the extension, as a dump is to hold them.

do $$
declare
  v_statement text;
begin
  for v_statement in
    select statement from kongtask.adopted order by number
  loop
    execute v_statement;
  end loop;

  update pg_catalog.pg_init_privs as initial
    set initprivs = array(
      select item
      from pg_catalog.unnest(initial.initprivs) as item
      where not exists (
        select from pg_catalog.aclexplode(array[item]) as acl
        where acl.grantee operator(pg_catalog.<>) pg_catalog.quote_ident(current_user)::pg_catalog.regrole
      )
    )
    from pg_catalog.pg_depend as member
    inner join pg_catalog.pg_extension as extension
      on
        member.refclassid operator(pg_catalog.=) extension.tableoid
        and member.refobjid operator(pg_catalog.=) extension.oid
    where
      extension.extname operator(pg_catalog.=) 'kongtask'
      and member.deptype operator(pg_catalog.=) 'e'
      and initial.classoid operator(pg_catalog.=) member.classid
      and initial.objoid operator(pg_catalog.=) member.objid
      and exists (select from kongtask.adopted);
  delete from pg_catalog.pg_init_privs where initprivs operator(pg_catalog.=) '{}';
end
$$;

drop table kongtask.adopted;
