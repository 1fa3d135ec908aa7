select job
