-- GETs and HEADs of the tag by its name, whatever it pointed to. See migration 7.
ALTER TABLE tag ADD COLUMN pulls INTEGER NOT NULL DEFAULT 0;
