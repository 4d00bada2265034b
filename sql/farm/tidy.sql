-- Takes away the plan of a load, so that the session can load again.
DROP TABLE pg_temp.farm_job_booked, pg_temp.farm_folder, pg_temp.farm_host, pg_temp.farm_proc,
pg_temp.farm_layer, pg_temp.farm_job, pg_temp.farm_size;
DROP FUNCTION pg_temp.farm_draw(bigint, text, bigint);
DROP FUNCTION pg_temp.farm_key(bigint, text, bigint);
