-- Folders, jobs, layers and hosts bring their side rows along and take them away again. A side
-- row's key is that of its owner. What still runs, or is local, holds its job and host.
CREATE FUNCTION public.trigger__before_insert_folder() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    NEW.b_default := NEW.b_default OR NEW.pk_parent_folder IS NULL;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION public.trigger__before_insert_folder()
IS 'A folder without parent is its show''s default folder.';

CREATE TRIGGER before_insert_folder BEFORE INSERT ON public.folder
FOR EACH ROW EXECUTE FUNCTION public.trigger__before_insert_folder();

CREATE FUNCTION public.trigger__after_insert_folder() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO public.folder_level (pk_folder_level, pk_folder, int_level)
    SELECT NEW.pk_folder, NEW.pk_folder, CASE
        WHEN NEW.pk_parent_folder IS NOT NULL THEN (
            SELECT parent.int_level + 1
            FROM public.folder_level AS parent
            WHERE parent.pk_folder = NEW.pk_parent_folder
        )
        ELSE 0
    END;
    INSERT INTO public.folder_resource (pk_folder_resource, pk_folder)
    VALUES (NEW.pk_folder, NEW.pk_folder);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION public.trigger__after_insert_folder()
IS 'Adds folder_level and folder_resource; an unknown parent is refused, its level being null.';

CREATE TRIGGER after_insert_folder AFTER INSERT ON public.folder
FOR EACH ROW EXECUTE FUNCTION public.trigger__after_insert_folder();

CREATE FUNCTION public.trigger__before_delete_folder() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    DELETE FROM public.folder_level AS side WHERE side.pk_folder = OLD.pk_folder;
    DELETE FROM public.folder_resource AS side WHERE side.pk_folder = OLD.pk_folder;
    RETURN OLD;
END
$$;
COMMENT ON FUNCTION public.trigger__before_delete_folder() IS 'Takes the side rows along.';

CREATE TRIGGER before_delete_folder BEFORE DELETE ON public.folder
FOR EACH ROW EXECUTE FUNCTION public.trigger__before_delete_folder();

CREATE FUNCTION public.trigger__after_insert_job() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO public.job_resource (pk_job_resource, pk_job) VALUES (NEW.pk_job, NEW.pk_job);
    INSERT INTO public.job_stat (pk_job_stat, pk_job) VALUES (NEW.pk_job, NEW.pk_job);
    INSERT INTO public.job_usage (pk_job_usage, pk_job) VALUES (NEW.pk_job, NEW.pk_job);
    INSERT INTO public.job_mem (pk_job_mem, pk_job) VALUES (NEW.pk_job, NEW.pk_job);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION public.trigger__after_insert_job()
IS 'Adds the four side rows; caps stay at their defaults, whoever launches the job sets them.';

CREATE TRIGGER after_insert_job AFTER INSERT ON public.job
FOR EACH ROW EXECUTE FUNCTION public.trigger__after_insert_job();

CREATE FUNCTION public.trigger__before_delete_job() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    DELETE FROM public.frame AS gone WHERE gone.pk_job = OLD.pk_job;
    DELETE FROM public.layer AS gone WHERE gone.pk_job = OLD.pk_job;
    DELETE FROM public.job_resource AS side WHERE side.pk_job = OLD.pk_job;
    DELETE FROM public.job_stat AS side WHERE side.pk_job = OLD.pk_job;
    DELETE FROM public.job_usage AS side WHERE side.pk_job = OLD.pk_job;
    DELETE FROM public.job_mem AS side WHERE side.pk_job = OLD.pk_job;
    RETURN OLD;
END
$$;
COMMENT ON FUNCTION public.trigger__before_delete_job()
IS 'Takes frames, layers and side rows along; a proc on one of the frames holds it all.';

CREATE TRIGGER before_delete_job BEFORE DELETE ON public.job
FOR EACH ROW EXECUTE FUNCTION public.trigger__before_delete_job();

CREATE FUNCTION public.trigger__after_job_finished() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    DELETE FROM public.job_local AS side WHERE side.pk_job = NEW.pk_job;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION public.trigger__after_job_finished() IS 'A finished job is local no longer.';

CREATE TRIGGER after_job_finished AFTER UPDATE ON public.job
FOR EACH ROW
WHEN (old.str_state = 'PENDING' AND new.str_state = 'FINISHED')
EXECUTE FUNCTION public.trigger__after_job_finished();

CREATE FUNCTION public.trigger__after_insert_layer() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    INSERT INTO public.layer_resource (pk_layer_resource, pk_layer, pk_job)
    VALUES (NEW.pk_layer, NEW.pk_layer, NEW.pk_job);
    INSERT INTO public.layer_stat (pk_layer_stat, pk_layer, pk_job)
    VALUES (NEW.pk_layer, NEW.pk_layer, NEW.pk_job);
    INSERT INTO public.layer_usage (pk_layer_usage, pk_layer, pk_job)
    VALUES (NEW.pk_layer, NEW.pk_layer, NEW.pk_job);
    INSERT INTO public.layer_mem (pk_layer_mem, pk_layer, pk_job)
    VALUES (NEW.pk_layer, NEW.pk_layer, NEW.pk_job);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION public.trigger__after_insert_layer() IS 'Adds the four side rows.';

CREATE TRIGGER after_insert_layer AFTER INSERT ON public.layer
FOR EACH ROW EXECUTE FUNCTION public.trigger__after_insert_layer();

CREATE FUNCTION public.trigger__before_delete_layer() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    DELETE FROM public.layer_resource AS side WHERE side.pk_layer = OLD.pk_layer;
    DELETE FROM public.layer_stat AS side WHERE side.pk_layer = OLD.pk_layer;
    DELETE FROM public.layer_usage AS side WHERE side.pk_layer = OLD.pk_layer;
    DELETE FROM public.layer_mem AS side WHERE side.pk_layer = OLD.pk_layer;
    RETURN OLD;
END
$$;
COMMENT ON FUNCTION public.trigger__before_delete_layer()
IS 'Takes the side rows along; frames hold their layer.';

CREATE TRIGGER before_delete_layer BEFORE DELETE ON public.layer
FOR EACH ROW EXECUTE FUNCTION public.trigger__before_delete_layer();

CREATE FUNCTION public.trigger__before_delete_host() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    DELETE FROM public.host_stat AS side WHERE side.pk_host = OLD.pk_host;
    RETURN OLD;
END
$$;
COMMENT ON FUNCTION public.trigger__before_delete_host() IS 'Takes host_stat along.';

CREATE TRIGGER before_delete_host BEFORE DELETE ON public.host
FOR EACH ROW EXECUTE FUNCTION public.trigger__before_delete_host();
