-- Places, shows and folders, and the folders' side rows where no trigger has made them. A show's
-- first folder is its root, named like the show; the others lie in it.
INSERT INTO public.facility (pk_facility, str_name)
SELECT
    pg_temp.farm_key(size.seed, 'facility', 1) AS pk_facility,
    'studio' AS str_name
FROM pg_temp.farm_size AS size;

INSERT INTO public.dept (pk_dept, str_name)
SELECT
    pg_temp.farm_key(size.seed, 'dept', nr.dept_no) AS pk_dept,
    'dept' || nr.dept_no AS str_name
FROM pg_temp.farm_size AS size
CROSS JOIN generate_series(1, size.departments) AS nr (dept_no);

INSERT INTO public.alloc (pk_alloc, str_name, str_tag, pk_facility)
SELECT
    pg_temp.farm_key(size.seed, 'alloc', nr.alloc_no) AS pk_alloc,
    'studio.alloc' || nr.alloc_no AS str_name,
    'alloc' || nr.alloc_no AS str_tag,
    pg_temp.farm_key(size.seed, 'facility', 1) AS pk_facility
FROM pg_temp.farm_size AS size
CROSS JOIN generate_series(1, size.allocations) AS nr (alloc_no);

INSERT INTO public.show (pk_show, str_name)
SELECT
    pg_temp.farm_key(size.seed, 'show', nr.show_no) AS pk_show,
    'show' || nr.show_no AS str_name
FROM pg_temp.farm_size AS size
CROSS JOIN generate_series(1, size.shows) AS nr (show_no);

CREATE TEMPORARY TABLE farm_folder AS
SELECT
    shows.show_no,
    nr.folder_of_show,
    pg_temp.farm_key(size.seed, 'show', shows.show_no) AS pk_show,
    pg_temp.farm_key(
        size.seed, 'folder', (shows.show_no - 1) * size.folders + nr.folder_of_show
    ) AS pk_folder,
    pg_temp.farm_key(size.seed, 'folder', (shows.show_no - 1) * size.folders + 1) AS pk_root,
    pg_temp.farm_key(
        size.seed, 'dept', 1 + (nr.folder_of_show - 1) % greatest(size.departments, 1)
    ) AS pk_dept
FROM pg_temp.farm_size AS size
CROSS JOIN generate_series(1, size.shows) AS shows (show_no)
CROSS JOIN generate_series(1, size.folders) AS nr (folder_of_show);
COMMENT ON TABLE farm_folder IS 'Plan: one row per folder.';

-- Roots first: a folder's level follows from its parent's.
INSERT INTO public.folder (pk_folder, pk_parent_folder, pk_show, str_name, b_default, pk_dept)
SELECT
    folder.pk_folder,
    CASE WHEN folder.folder_of_show > 1 THEN folder.pk_root END AS pk_parent_folder,
    folder.pk_show,
    CASE
        WHEN folder.folder_of_show > 1 THEN 'folder' || folder.folder_of_show
        ELSE 'show' || folder.show_no
    END AS str_name,
    folder.folder_of_show = 1 AS b_default,
    folder.pk_dept
FROM pg_temp.farm_folder AS folder
ORDER BY folder.folder_of_show, folder.show_no;

INSERT INTO public.folder_level (pk_folder_level, pk_folder, int_level)
SELECT
    folder.pk_folder AS pk_folder_level,
    folder.pk_folder,
    (folder.folder_of_show > 1)::integer AS int_level
FROM pg_temp.farm_folder AS folder
WHERE NOT EXISTS (
    SELECT 1 FROM public.folder_level AS side
    WHERE side.pk_folder = folder.pk_folder
);

INSERT INTO public.folder_resource (pk_folder_resource, pk_folder)
SELECT
    folder.pk_folder AS pk_folder_resource,
    folder.pk_folder
FROM pg_temp.farm_folder AS folder
WHERE NOT EXISTS (
    SELECT 1 FROM public.folder_resource AS side
    WHERE side.pk_folder = folder.pk_folder
);
