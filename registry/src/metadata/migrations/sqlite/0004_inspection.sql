-- The check of the stores asks which blob an object is.
CREATE INDEX blob_by_object ON blob (object_key);
