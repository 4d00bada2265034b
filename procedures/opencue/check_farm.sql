-- Raises unless the schema public holds every farm column that retally reads or writes.
-- Locks and writes nothing.
-- Raises RT007 naming what is missing.
CREATE OR REPLACE FUNCTION retally.check_farm()
RETURNS void
LANGUAGE plpgsql STABLE
AS $$
DECLARE
    v_wanted CONSTANT text[] := ARRAY[
        'show.pk_show', 'show.str_name',
        'alloc.pk_alloc', 'alloc.str_name',
        'dept.pk_dept', 'dept.str_name',
        'folder.pk_folder', 'folder.pk_show', 'folder.str_name',
        'host.pk_host', 'host.pk_alloc', 'host.str_name',
        'host.int_cores', 'host.int_cores_idle', 'host.int_mem', 'host.int_mem_idle',
        'host.int_gpus', 'host.int_gpus_idle', 'host.int_gpu_mem', 'host.int_gpu_mem_idle',
        'host_local.pk_host', 'host_local.pk_job',
        'host_local.int_cores_idle', 'host_local.int_mem_idle',
        'host_local.int_gpus_idle', 'host_local.int_gpu_mem_idle',
        'job.pk_job', 'job.pk_show', 'job.pk_folder', 'job.pk_dept', 'job.str_name',
        'layer.pk_layer', 'layer.pk_job', 'layer.str_name',
        'frame.pk_frame', 'frame.pk_layer', 'frame.pk_job',
        'proc.pk_proc', 'proc.pk_host', 'proc.pk_show', 'proc.pk_job', 'proc.pk_layer',
        'proc.pk_frame', 'proc.int_cores_reserved', 'proc.int_gpus_reserved', 'proc.b_local',
        'proc.int_mem_reserved', 'proc.int_mem_pre_reserved',
        'proc.int_gpu_mem_reserved', 'proc.int_gpu_mem_pre_reserved',
        'subscription.pk_show', 'subscription.pk_alloc',
        'subscription.int_cores', 'subscription.int_gpus', 'subscription.int_burst',
        'layer_resource.pk_layer', 'layer_resource.pk_job',
        'layer_resource.int_cores', 'layer_resource.int_gpus',
        'job_resource.pk_job', 'job_resource.int_cores', 'job_resource.int_gpus',
        'job_resource.int_local_cores', 'job_resource.int_local_gpus',
        'job_resource.int_max_cores', 'job_resource.int_max_gpus',
        'folder_resource.pk_folder', 'folder_resource.int_cores', 'folder_resource.int_gpus',
        'point.pk_show', 'point.pk_dept', 'point.int_cores', 'point.int_gpus'
    ];
    v_missing text[];
BEGIN
    SELECT array_agg(w.name ORDER BY w.place)
    INTO v_missing
    FROM unnest(v_wanted) WITH ORDINALITY AS w (name, place)
    WHERE NOT EXISTS (
        SELECT FROM pg_catalog.pg_attribute AS a
        WHERE
            a.attrelid = to_regclass('public.' || split_part(w.name, '.', 1))
            AND a.attname = split_part(w.name, '.', 2)
            AND NOT a.attisdropped
    );
    IF cardinality(v_missing) = cardinality(v_wanted) THEN
        RAISE EXCEPTION 'database % holds no OpenCue farm', current_database()
            USING ERRCODE = 'RT007',
                HINT = 'Connect to the Cuebot''s database, or make a farm with'
                    || ' `retally farm create`.';
    ELSIF cardinality(v_missing) > 0 THEN
        RAISE EXCEPTION 'the farm schema lacks %', array_to_string(v_missing, ', ')
            USING ERRCODE = 'RT007',
                HINT = 'retally needs OpenCue''s schema from migration V11 on, which brought'
                    || ' the GPU columns; migrate the farm first.';
    END IF;
END
$$;
COMMENT ON FUNCTION retally.check_farm() IS
'Raises unless the schema public holds every farm column that retally uses.';
