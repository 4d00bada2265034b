-- A frame's state: what it turns into by itself, and who counts it. New frames are not counted,
-- whoever adds them sets the counts; a frame in SETUP is in no count either.
CREATE FUNCTION public.trigger__set_frame_ts_eligible_on_insert() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF NEW.str_state = 'WAITING' THEN
        NEW.ts_eligible := coalesce(NEW.ts_eligible, current_timestamp);
    END IF;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION public.trigger__set_frame_ts_eligible_on_insert()
IS 'A frame that is added as WAITING may run from now on.';

CREATE TRIGGER set_frame_ts_eligible_on_insert BEFORE INSERT ON public.frame
FOR EACH ROW EXECUTE FUNCTION public.trigger__set_frame_ts_eligible_on_insert();

CREATE FUNCTION public.trigger__set_frame_ts_eligible_setup_to_wait() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    NEW.ts_eligible := current_timestamp;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION public.trigger__set_frame_ts_eligible_setup_to_wait()
IS 'A frame that is set up may run from now on.';

CREATE TRIGGER set_frame_ts_eligible_setup_to_wait BEFORE UPDATE ON public.frame
FOR EACH ROW
WHEN (old.str_state = 'SETUP' AND new.str_state = 'WAITING')
EXECUTE FUNCTION public.trigger__set_frame_ts_eligible_setup_to_wait();

CREATE FUNCTION public.trigger__update_frame_dep_to_wait() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    NEW.str_state := 'WAITING';
    NEW.ts_eligible := current_timestamp;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION public.trigger__update_frame_dep_to_wait()
IS 'A frame whose last dependency is met waits, and may run from now on.';

CREATE TRIGGER update_frame_dep_to_wait BEFORE UPDATE ON public.frame
FOR EACH ROW
WHEN (old.int_depend_count > 0 AND new.int_depend_count < 1 AND old.str_state = 'DEPEND')
EXECUTE FUNCTION public.trigger__update_frame_dep_to_wait();

CREATE FUNCTION public.trigger__update_frame_wait_to_dep() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    NEW.str_state := 'DEPEND';
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION public.trigger__update_frame_wait_to_dep()
IS 'A frame with open dependencies that does not run turns to DEPEND.';

CREATE TRIGGER update_frame_wait_to_dep BEFORE UPDATE ON public.frame
FOR EACH ROW
WHEN (
    new.int_depend_count > 0
    AND new.str_state IN ('DEAD', 'SUCCEEDED', 'WAITING', 'CHECKPOINT')
)
EXECUTE FUNCTION public.trigger__update_frame_wait_to_dep();

CREATE FUNCTION public.trigger__update_frame_eaten() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    NEW.str_state := 'SUCCEEDED';
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION public.trigger__update_frame_eaten() IS 'What has succeeded cannot be eaten.';

CREATE TRIGGER update_frame_eaten BEFORE UPDATE ON public.frame
FOR EACH ROW
WHEN (new.str_state = 'EATEN' AND old.str_state = 'SUCCEEDED')
EXECUTE FUNCTION public.trigger__update_frame_eaten();

CREATE FUNCTION public.trigger__update_frame_checkpoint_state() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    NEW.str_state := 'CHECKPOINT';
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION public.trigger__update_frame_checkpoint_state()
IS 'A running frame that keeps checkpoints goes there instead of back to WAITING.';

CREATE TRIGGER update_frame_checkpoint_state BEFORE UPDATE ON public.frame
FOR EACH ROW
WHEN (
    new.str_state = 'WAITING' AND old.str_state = 'RUNNING'
    AND new.str_checkpoint_state IN ('ENABLED', 'COPYING')
)
EXECUTE FUNCTION public.trigger__update_frame_checkpoint_state();

CREATE FUNCTION public.trigger__update_frame_status_counts() RETURNS trigger
LANGUAGE plpgsql
AS $$
DECLARE
    v_waiting int := (NEW.str_state = 'WAITING')::int - (OLD.str_state = 'WAITING')::int;
    v_running int := (NEW.str_state = 'RUNNING')::int - (OLD.str_state = 'RUNNING')::int;
    v_dead int := (NEW.str_state = 'DEAD')::int - (OLD.str_state = 'DEAD')::int;
    v_depend int := (NEW.str_state = 'DEPEND')::int - (OLD.str_state = 'DEPEND')::int;
    v_eaten int := (NEW.str_state = 'EATEN')::int - (OLD.str_state = 'EATEN')::int;
    v_succeeded int := (NEW.str_state = 'SUCCEEDED')::int - (OLD.str_state = 'SUCCEEDED')::int;
    v_checkpoint int := (NEW.str_state = 'CHECKPOINT')::int - (OLD.str_state = 'CHECKPOINT')::int;
BEGIN
    UPDATE public.layer_stat AS stat
    SET int_waiting_count = stat.int_waiting_count + v_waiting,
        int_running_count = stat.int_running_count + v_running,
        int_dead_count = stat.int_dead_count + v_dead,
        int_depend_count = stat.int_depend_count + v_depend,
        int_eaten_count = stat.int_eaten_count + v_eaten,
        int_succeeded_count = stat.int_succeeded_count + v_succeeded,
        int_checkpoint_count = stat.int_checkpoint_count + v_checkpoint,
        ts_started = CASE
            WHEN v_running > 0 THEN coalesce(stat.ts_started, current_timestamp)
            ELSE stat.ts_started
        END,
        ts_stopped = CASE WHEN v_running < 0 THEN current_timestamp ELSE stat.ts_stopped END
    WHERE stat.pk_layer = NEW.pk_layer;
    UPDATE public.job_stat AS stat
    SET int_waiting_count = stat.int_waiting_count + v_waiting,
        int_running_count = stat.int_running_count + v_running,
        int_dead_count = stat.int_dead_count + v_dead,
        int_depend_count = stat.int_depend_count + v_depend,
        int_eaten_count = stat.int_eaten_count + v_eaten,
        int_succeeded_count = stat.int_succeeded_count + v_succeeded,
        int_checkpoint_count = stat.int_checkpoint_count + v_checkpoint
    WHERE stat.pk_job = NEW.pk_job;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION public.trigger__update_frame_status_counts()
IS 'Counts a frame under its new state, in its layer and its job, and notes when the layer ran.';

CREATE TRIGGER update_frame_status_counts AFTER UPDATE ON public.frame
FOR EACH ROW
WHEN (old.str_state != 'SETUP' AND old.str_state != new.str_state)
EXECUTE FUNCTION public.trigger__update_frame_status_counts();
