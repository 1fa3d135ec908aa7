  )
)
returning jobs
