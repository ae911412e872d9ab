-- Of the bytes written for a commit, those of data files that turned out to hold late rows and are in no version.
ALTER TABLE commits ADD COLUMN discarded_bytes BIGINT NOT NULL DEFAULT 0;
